"""The model over HTTP: the app, its batcher and its page. Needs the extra ``serve``.

A photo's way: `uploads` reads the request within limits, `decoding` has a process of its own turn the file into the
model's input, `batching` computes what arrives together in one go, and `app` answers.
"""
