/** The service as this page sees it: the model that answers, and the photos that wait for it. */

import { isStrange } from "./photos.js";

const LANES = 3; // requests at once
const GROUP = 4; // photos a request
const GROUP_BYTES = 12e6;
const ROOM = 1.5e6; // bytes at once, on the slowest of lines; but a photo goes whole
const AHEAD = 8e3; // ms; on others, no more goes at once than is answered in this time
const ATTEMPTS = 5; // of a request that gets no answer
const BUSY_ATTEMPTS = 30; // of one that is told to come again
const LONGEST_WAIT = 300e3; // ms for one answer, beside what the photos on their way may take to be sent
const SLOWEST = 16; // bytes a ms; a body that comes more slowly is refused by the service

/** Statuses of whoever has too much to do, or of a proxy whose service is about to come back. */
const LATER = new Set([429, 502, 503, 504]);

/** Kinds of one photo's errors that another attempt may not meet. */
const AGAIN = new Set(["not-reached", "timeout"]);

const GONE = "cannot be read any more: it was moved, renamed or changed after you added it; add it again";
const SILENT = "was not classified: the service does not answer";

/**
 * Sends photos in small groups, a few at once, and comes again where the service is busy or does not answer.
 *
 * A photo is `{file, name, preview, attempts, …}`. `listener` has
 * - `sent(photo)`, `answered(photo, result, model)`;
 * - `failed(photo, {kind, reason, again})`: the reason follows the photo's name, or is a sentence where the kind is
 *   "request";
 * - `state(state)`: `{kind: "going"}`, `{kind: "busy" | "silent", seconds}`, `{kind: "stopped" | "locked"}`;
 * - `described(model)`: the answer of `GET v1/model`.
 */
export class Service {
  #listener;
  #key = "";
  #model = null;
  #describing = false;
  #waiting = [];
  #flying = 0;
  #room = ROOM; // bytes that may be on their way at once
  #aloft = new Set(); // the photos that are on their way
  #gone = new WeakSet(); // those that were taken back
  #failures = 0; // in a row
  #since = 0; // what set out before this moment and failed is of the same failure
  #timer = 0;
  #locked = false;

  constructor(listener) {
    this.#listener = listener;
  }

  get model() {
    return this.#model;
  }

  /** Ask for the model, which is needed before any photo is sent. */
  start() {
    this.#pump();
  }

  send(photos) {
    for (const photo of photos) {
      photo.attempts = 0;
      this.#gone.delete(photo);
      if (!this.#aloft.has(photo)) this.#waiting.push(photo);
    }
    if (!this.#timer) this.#failures = 0;
    this.#pump();
  }

  /** Take photos back. What is on its way is answered, but nobody listens. */
  forget(photos) {
    for (const photo of photos) this.#gone.add(photo);
    this.#waiting = this.#waiting.filter((photo) => !this.#gone.has(photo));
  }

  /** Put photos back to the front, but for those that were taken back on their way. */
  #again(photos) {
    for (const photo of photos) this.#aloft.delete(photo);
    this.#waiting.unshift(...photos.filter((photo) => !this.#gone.has(photo)));
  }

  unlock(key) {
    this.#key = key;
    this.#locked = false;
    this.#pump();
  }

  /** Do not wait any longer. */
  now() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#failures = 0;
    this.#since = performance.now();
    this.#pump();
  }

  #pump() {
    if (this.#timer || this.#locked) return;
    if (!this.#model) {
      if (!this.#describing) this.#describe();
      return;
    }
    while (this.#flying < LANES && this.#waiting.length && !this.#timer && !this.#locked) {
      const group = this.#take();
      if (!group.length) return;
      this.#flying += 1;
      for (const photo of group) this.#aloft.add(photo);
      this.#post(group).finally(() => {
        this.#flying -= 1;
        for (const photo of group) this.#aloft.delete(photo);
        this.#pump();
      });
    }
  }

  /** The next photos, if there is room. A few are shared out among the lanes, and one that failed goes alone. */
  #take() {
    const limits = this.#model.limits ?? {};
    const most = Math.min(GROUP, limits.files ?? GROUP, Math.ceil(this.#waiting.length / LANES));
    const each = Math.min(GROUP_BYTES, this.#room / LANES);
    const left = this.#flying ? this.#room - weight(this.#aloft) : Infinity;
    const group = [];
    for (let bytes = 0; group.length < most && this.#waiting.length; ) {
      const [photo] = this.#waiting;
      bytes += photo.file.size;
      if (bytes > left || (group.length && (bytes > each || photo.attempts))) break;
      group.push(this.#waiting.shift());
      if (photo.attempts) break;
    }
    return group;
  }

  async #describe() {
    this.#describing = true;
    const started = performance.now();
    try {
      const response = await this.#fetch("v1/model");
      if (response.ok) {
        this.#model = await response.json();
        this.#recovered();
        this.#listener.described(this.#model);
      } else if (response.status === 401) {
        this.#lock();
      } else if (LATER.has(response.status)) {
        this.#hold("busy", retryAfter(response));
      } else {
        this.#failed(started);
      }
    } catch {
      this.#failed(started);
    } finally {
      this.#describing = false;
      this.#pump();
    }
  }

  async #post(group) {
    const body = new FormData();
    const load = weight(this.#aloft);
    for (const photo of group) {
      body.append("photos", photo.file, photo.file.name || "photo");
      this.#listener.sent(photo);
    }
    const started = performance.now();
    let response;
    let answer;
    try {
      const strange = await Promise.all(group.map((photo) => photo.preview === null || isStrange(photo.file)));
      const preview = strange.includes(true);
      response = await this.#fetch(`v1/predictions?top=5&evidence=true&preview=${preview}`, { method: "POST", body }, load);
      answer = await response.json().catch(() => null);
    } catch {
      return this.#unanswered(group, started);
    }
    if (response.ok && answer?.results?.length === group.length) {
      this.#room = Math.max(ROOM, (load * AHEAD) / (performance.now() - started));
      this.#recovered();
      const { digest, threshold } = this.#model;
      const other = answer.model.digest !== digest || answer.model.threshold !== threshold;
      if (other && !this.#describing) this.#describe(); // the service has come back with another model
      group.forEach((photo, i) => {
        const { error, ...result } = answer.results[i];
        if (error) this.#fail(photo, error.kind, error.reason, AGAIN.has(error.kind));
        else this.#listener.answered(photo, result, answer.model);
      });
    } else if (response.status === 401) {
      this.#again(group);
      this.#lock();
    } else if (LATER.has(response.status)) {
      const tired = group.filter((photo) => (photo.refused = (photo.refused ?? 0) + 1) >= BUSY_ATTEMPTS);
      for (const photo of tired) {
        photo.refused = 0;
        this.#fail(photo, "busy", "was not classified: the service has too much to do; try again later", true);
      }
      this.#again(group.filter((photo) => !tired.includes(photo)));
      this.#hold("busy", retryAfter(response));
    } else if (group.length > 1) {
      // Something is wrong with the request as a whole. Alone, the others will do.
      for (const photo of group) photo.attempts += 1;
      this.#again(group);
    } else {
      const again = response.ok || response.status >= 500 || response.status === 408;
      const plain = response.ok
        ? "got an answer that this page does not understand; reload the page"
        : response.status === 413
          ? "is larger than a server between this page and the service lets pass; make it smaller, or ask who runs it"
          : `was refused by the service (status ${response.status})`;
      if (typeof answer?.detail === "string") this.#fail(group[0], "request", answer.detail, again);
      else this.#fail(group[0], "refused", plain, again);
    }
  }

  async #unanswered(group, started) {
    let silent = false; // whether there was a photo to answer
    for (const photo of [...group].reverse()) {
      if (this.#gone.has(photo)) continue;
      photo.attempts += 1;
      // A file that is gone looks like a lost connection: the browser finds out while it sends.
      const readable = await photo.file.slice(0, 1).arrayBuffer().then(() => true, () => false);
      silent ||= readable;
      if (!readable) this.#fail(photo, "gone", GONE, false);
      else if (photo.attempts >= ATTEMPTS) this.#fail(photo, "silent", SILENT, true);
      else this.#again([photo]);
    }
    if (!silent) return;
    if (this.#waiting.length) this.#failed(started);
    else this.#listener.state({ kind: "stopped" });
  }

  #failed(started) {
    if (started < this.#since) return;
    this.#failures += 1;
    if (this.#failures < ATTEMPTS) {
      this.#hold("silent", 2 ** (this.#failures - 1));
      return;
    }
    const photos = this.#waiting.splice(0);
    for (const photo of photos) this.#fail(photo, "silent", SILENT, true);
    this.#failures = 0;
    this.#since = performance.now();
    if (!this.#model) this.#hold("silent", 15);
    else this.#listener.state({ kind: "stopped" });
  }

  #fail(photo, kind, reason, again) {
    this.#aloft.delete(photo);
    this.#listener.failed(photo, { kind, reason, again });
  }

  #recovered() {
    this.#failures = 0;
    this.#listener.state({ kind: "going" });
  }

  #lock() {
    if (this.#locked) return;
    this.#locked = true;
    this.#listener.state({ kind: "locked", wrong: this.#key !== "" });
  }

  #hold(kind, seconds) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#since = performance.now();
      this.#pump();
    }, 1000 * seconds);
    this.#since = Infinity;
    this.#listener.state({ kind, seconds });
  }

  #fetch(address, options = {}, bytes = 0) {
    const headers = this.#key ? { authorization: `Bearer ${this.#key}` } : {};
    const signal = AbortSignal.timeout?.(LONGEST_WAIT + bytes / SLOWEST);
    return fetch(address, { ...options, headers, signal, credentials: "same-origin", cache: "no-store" });
  }
}

function weight(photos) {
  return [...photos].reduce((bytes, photo) => bytes + photo.file.size, 0);
}

function retryAfter(response) {
  const header = response.headers.get("retry-after") ?? "";
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Math.min(60, Math.max(0.5, Number.isFinite(seconds) ? seconds : 2));
}
