/* The browser's client: live events over a socket that resumes, long-polling while no socket can be had, and an outbox whose
   sends keep one client_message_id until the server has answered. Used by app.js; knows nothing of the page. */

const POLL_AFTER_FAILURES = 2;
const LONGEST_PAUSE_MS = 30_000;
const POLL_WAIT_S = 25;
const ANSWER_MS = 35_000;      // the server ends any command within 30 s; a little more for the way
const QUICK_MS = 1000;         // a poll that is answered sooner did not wait
const IDLE_PAUSE_MS = 250;     // after the second quick answer without news in a row; doubles with each further one

export class Refused extends Error {
  constructor(error, status) {
    super(error?.message || `status ${status}`);
    this.code = error?.code || "INTERNAL_ERROR";
    this.retryable = Boolean(error?.retryable);
    this.retryAfterS = error?.retry_after_s;
    this.status = status;
  }
}

export async function request(method, path, { body, token, signal } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  let read = null;
  try { read = await answer.json(); } catch { /* a proxy's page, or nothing */ }
  if (!answer.ok || !read) throw new Refused(read?.error, answer.status);
  return read.data;
}

function lostAnswer() { return new Refused({ message: "no answer", retryable: true }, 0); }

export class Login {
  /* The two tokens of one login session; `access()` gives one that is still good for a minute. */
  constructor(data) { Object.assign(this, data); this.user = data.user; }

  async access() {
    if (Date.parse(this.expires_at) - Date.now() > 60_000) return this.access_token;
    if (!this.refreshing) this.refreshing = this.refresh().finally(() => { this.refreshing = null; });
    await this.refreshing;
    return this.access_token;
  }

  async refresh() {
    this.refreshId ||= crypto.randomUUID();   // the same one until an answer came: a lost reply is not theft
    const data = await request("POST", "/v1/auth/refresh", { body: { refresh_token: this.refresh_token, client_refresh_id: this.refreshId } });
    this.refreshId = null;
    Object.assign(this, { access_token: data.access_token, refresh_token: data.refresh_token, expires_at: data.expires_at });
    this.onchange?.(this);
  }
}

/* The cursor that belongs to a place the server gave: what was missed up to its `sequence` is still to come. */
export function beginning(place) {
  const missed = place.recovered === false ? 0 : place.missed || 0;
  if (typeof place.sequence === "number") return place.sequence - missed;
  const [, epoch, offset] = /^(.*)-(\d+)$/.exec(place.sequence) || [];
  return missed && epoch !== undefined ? `${epoch}-${offset - missed}` : place.sequence;
}

/* Whether `position` lies after `seen`; another epoch is another history, all of it new. */
export function isBehind(seen, position) {
  if (seen === undefined) return true;
  if (typeof seen === "number" && typeof position === "number") return position > seen;
  const [, oldEpoch, old] = /^(.*)-(\d+)$/.exec(seen) || [], [, epoch, fresh] = /^(.*)-(\d+)$/.exec(position) || [];
  return epoch === undefined || oldEpoch !== epoch || Number(fresh) > Number(old);
}

export class Connection {
  /* `onevent(frame)` gets each event once, in order per channel; `onstate(state)` live, polling, connecting, offline, ended.
     The event `gap` with `{channel, after, cause, seen}` says that what lies between `seen` and `after` does not come by itself. */
  constructor(login, { onevent, onstate }) {
    Object.assign(this, { login, onevent, onstate });
    this.after = {};
    this.outbox = new Map();
    this.answers = new Map();
    this.failures = 0;
    this.number = 0;
    this.idlePolls = 0;
    this.bytesMax = Infinity;
    this.stopped = false;
    this.state = "";
    addEventListener("online", () => this.hurry?.());
  }

  start() { this.socketLoop(); this.pollLoop(); }

  stop() {
    this.stopped = true;
    this.socket?.close(1000);
    this.polling?.abort();
    this.hurry?.();
  }

  tell(state) {
    if (state === this.state || (this.stopped && state !== "ended")) return;
    this.state = state;
    this.onstate(state);
  }

  /* -- the socket */
  async socketLoop() {
    this.tell("connecting");
    while (!this.stopped) {
      const dictated = await this.visit();
      if (this.stopped) return;
      this.failures += 1;
      const bound = Math.min(LONGEST_PAUSE_MS, 1000 * 2 ** Math.min(this.failures - 1, 10));
      await this.pause(dictated ?? Math.random() * bound);
    }
  }

  pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.hurry = () => { clearTimeout(timer); resolve(); };
    });
  }

  async visit() {
    let token;
    try { token = await this.login.access(); } catch (error) {
      if (error.status === 401) this.ended();
      return undefined;
    }
    return new Promise((resolve) => {
      const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/ws`);
      let dictated, silent;
      const alive = (ms) => { clearTimeout(silent); silent = setTimeout(() => { socket.close(); leave(); }, ms); };
      const leave = (code) => {
        clearTimeout(silent);
        if (this.socket === socket) this.socket = null;
        this.lost(code);
        if (this.state === "live") this.tell("connecting");
        if (code === 1008 && !socket.wasLive) this.ended();
        resolve(dictated);
      };
      alive(15_000);
      socket.onopen = () => socket.send(JSON.stringify({ id: 0, method: "auth", params: { token } }));
      socket.onclose = (event) => leave(event.code);
      socket.onmessage = ({ data }) => {
        alive(60_000);
        const frame = JSON.parse(data);
        if (frame.event === "hello") this.greet(socket, frame.data);
        if (frame.event === "drain") dictated = frame.data.reconnect_in_ms;
        if (frame.event) this.take(frame);
        else this.answer(frame);
      };
    });
  }

  async greet(socket, hello) {
    this.socket = socket;
    this.bytesMax = hello.limits?.message_bytes_max || Infinity;
    const beat = setInterval(() => {
      if (socket.readyState !== WebSocket.OPEN) clearInterval(beat);
      else socket.send('{"method":"ping"}');
    }, 1000 * (hello.heartbeat_s || 25));
    try { await this.ask("subscribe", { channels: "all", after: this.after }); } catch { socket.close(); return; }
    socket.wasLive = true;
    this.failures = 0;
    this.polling?.abort();
    this.tell("live");
    this.flush();
  }

  ask(method, params) {
    const id = `b${this.number += 1}`, text = JSON.stringify({ id, method, params });
    const size = new TextEncoder().encode(text).length;
    if (size > this.bytesMax) return Promise.reject(new Refused({ code: "TOO_LARGE", message: "This is too long to be sent." }, 0));
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => { this.answers.delete(id); reject(lostAnswer()); }, ANSWER_MS);
      this.answers.set(id, { resolve, reject, late, size });
      this.socket.send(text);
    });
  }

  answer(frame) {
    const known = [...this.answers.keys()], id = frame.id === null && known.length === 1 ? known[0] : frame.id;
    const wait = this.answers.get(id);
    if (!wait) return;
    this.answers.delete(id);
    clearTimeout(wait.late);
    if (frame.error) { wait.reject(new Refused(frame.error, 0)); return; }
    if (frame.result?.channels) this.placed(frame.result.channels, Object.keys(this.after).length > 0);
    wait.resolve(frame.result);
  }

  lost(code) {
    const waits = [...this.answers.values()];
    const largest = code === 1009 ? Math.max(...waits.map((wait) => wait.size)) : undefined;
    for (const wait of waits) {
      clearTimeout(wait.late);
      wait.reject(wait.size === largest ? new Refused({ code: "TOO_LARGE", message: "This is too long to be sent." }, 0) : lostAnswer());
    }
    this.answers.clear();
  }

  /* -- where a channel stands. `returns`: we were here before, so a channel that is new to us at its end may have been joined
     while we were away, and what was said before that end was never seen. */
  placed(places, returns) {
    for (const [channel, place] of Object.entries(places)) {
      if (!("sequence" in place)) continue;
      const position = beginning(place);
      if (place.recovered === false) this.skip(channel, position, place.reset ? "reset" : "not_kept");
      else if (!(channel in this.after)) {
        this.after[channel] = position;
        if (returns && position === place.sequence) this.gap(channel, position, "joined_away");
      }
    }
  }

  skip(channel, position, cause) {
    const seen = this.after[channel];
    if (seen === position || !(cause === "reset" || isBehind(seen, position))) return;
    this.after[channel] = position;
    this.gap(channel, position, cause, seen);
  }

  gap(channel, after, cause, seen = null) { this.onevent({ event: "gap", channel, data: { channel, after, cause, seen } }); }

  /* -- without a socket */
  async pollLoop() {
    while (!this.stopped) {
      if (this.socket || this.failures < POLL_AFTER_FAILURES) { await new Promise((r) => setTimeout(r, 300)); continue; }
      try {
        const pause = await this.poll();
        await new Promise((r) => setTimeout(r, pause));
      } catch (error) {
        if (error.status === 401) { this.ended(); return; }
        if (error.name !== "AbortError") {
          if (!this.socket) this.tell("offline");
          await new Promise((r) => setTimeout(r, 1000 * (error.retryAfterS || 1 + Math.random())));
        }
      }
    }
  }

  /* One poll; gives the ms until the next. */
  async poll() {
    this.polling = new AbortController();
    const token = await this.login.access(), began = performance.now(), after = { ...this.after };
    const wait_s = this.state === "polling" && !this.wasAdded ? POLL_WAIT_S : 0;
    const data = await request("POST", "/v1/realtime/poll", { body: { channels: "all", after, wait_s }, token, signal: this.polling.signal });
    if (!this.socket) { this.tell("polling"); this.flush(); }
    const news = data.events.filter((frame) => this.take(frame)).length > 0;
    this.wasAdded = data.events.some((frame) => frame.event === "conversation.added");   // ask at once where it begins
    for (const [channel, position] of Object.entries(data.after)) {
      if (!(channel in this.after)) this.placed({ [channel]: { sequence: position } }, Object.keys(after).length > 0);
    }
    return this.pollPause(performance.now() - began, news);
  }

  /* Polls follow one another at once, unless answers come at once and bring nothing, why ever: then more and more slowly. */
  pollPause(took, news) {
    this.idlePolls = news || took >= QUICK_MS ? 0 : this.idlePolls + 1;
    if (this.idlePolls < 2) return 0;   // the first poll asks not to wait
    return Math.min(LONGEST_PAUSE_MS, IDLE_PAUSE_MS * 2 ** Math.min(this.idlePolls - 2, 10) * (1 + Math.random()));
  }

  /* Whether it brought something. */
  take(frame) {
    const data = frame.data || {}, channel = data.channel || frame.channel;
    if (frame.event === "gap") { this.skip(channel, data.after, data.cause); return false; }
    const position = frame.sequence ?? frame.position;
    if (position !== undefined && position !== null && frame.channel) {
      if (!isBehind(this.after[frame.channel], position)) return false;
      this.after[frame.channel] = position;
    }
    if (frame.event === "unsubscribed") delete this.after[channel];
    if (frame.event === "subscribed") this.placed({ [channel]: data }, false);
    this.onevent(frame);
    return true;
  }

  ended() {
    if (this.stopped) return;
    this.tell("ended");
    this.stop();
  }

  /* -- the outbox: sends of one conversation leave one after the other */
  send(conversationId, content, key) {
    const problem = { code: "VALIDATION_ERROR", message: "This text holds half a character and cannot be sent." };
    if (content.isWellFormed?.() === false) return Promise.reject(new Refused(problem, 0));
    return new Promise((resolve, reject) => {
      this.outbox.set(key, { params: { conversation_id: conversationId, content, client_message_id: key }, resolve, reject, busy: false });
      this.flush();
    });
  }

  flush() {
    const busy = new Set();
    for (const entry of this.outbox.values()) {
      const conversation = entry.params.conversation_id;
      if (entry.busy || busy.has(conversation)) { busy.add(conversation); continue; }
      if (!this.socket && this.state !== "polling") continue;
      busy.add(conversation);
      this.deliver(entry);
    }
  }

  async deliver(entry) {
    entry.busy = true;
    const key = entry.params.client_message_id;
    try {
      const result = this.socket
        ? await this.ask("messages.send", entry.params)
        : await request("POST", "/v1/messages", { body: entry.params, token: await this.login.access() });
      this.outbox.delete(key);
      entry.resolve(result);
    } catch (error) {
      if (error instanceof Refused && !error.retryable && error.status !== 0 && error.status !== 401) {
        this.outbox.delete(key);
        entry.reject(error);
      } else if (error instanceof Refused && !error.retryable && error.status === 0 && error.code !== "INTERNAL_ERROR") {
        this.outbox.delete(key);
        entry.reject(error);
      } else {
        await new Promise((r) => setTimeout(r, 1000 * (error.retryAfterS || 0.5)));
      }
    }
    entry.busy = false;
    this.flush();
  }
}
