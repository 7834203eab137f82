"""The model over HTTP: the app, its batcher and its page. Needs the extra ``serve``.

A photo's way: `uploads` reads the request within limits, `decoding` has a process of its own turn the file into the
model's input, `batching` has them computed, side by side or together, and `app` answers.
"""
