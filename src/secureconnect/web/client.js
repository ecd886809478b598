/* The browser's client: live events over a socket that resumes, long-polling while no socket can be had, and an outbox whose
   sends keep one client_message_id until the server has answered. Used by app.js; knows nothing of the page. */

const POLL_AFTER_FAILURES = 2;
const LONGEST_PAUSE_MS = 30_000;

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

export class Connection {
  /* `onevent(frame)` gets each event once, in order per channel; `onstate(state)` live, polling, connecting, offline, ended. */
  constructor(login, { onevent, onstate }) {
    Object.assign(this, { login, onevent, onstate });
    this.after = {};
    this.outbox = new Map();
    this.answers = new Map();
    this.failures = 0;
    this.number = 0;
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
        for (const wait of this.answers.values()) wait.reject(new Refused({ message: "connection lost", retryable: true }, 0));
        this.answers.clear();
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
    const id = `b${this.number += 1}`;
    return new Promise((resolve, reject) => {
      this.answers.set(id, { resolve, reject });
      this.socket.send(JSON.stringify({ id, method, params }));
    });
  }

  answer(frame) {
    const wait = this.answers.get(frame.id);
    if (!wait) return;
    this.answers.delete(frame.id);
    if (frame.error) { wait.reject(new Refused(frame.error, 0)); return; }
    for (const [channel, place] of Object.entries(frame.result?.channels || {})) {
      if ("sequence" in place && (!place.recovered || !(channel in this.after))) {
        if (channel in this.after) this.onevent({ event: "client.gap", channel, data: place });
        this.after[channel] = place.sequence;
      }
    }
    wait.resolve(frame.result);
  }

  /* -- without a socket */
  async pollLoop() {
    while (!this.stopped) {
      if (this.socket || this.failures < POLL_AFTER_FAILURES) { await new Promise((r) => setTimeout(r, 300)); continue; }
      this.polling = new AbortController();
      try {
        const token = await this.login.access();
        const wait_s = this.state === "polling" ? 25 : 0;
        const body = { channels: "all", after: this.after, wait_s };
        const data = await request("POST", "/v1/realtime/poll", { body, token, signal: this.polling.signal });
        if (!this.socket) { this.tell("polling"); this.flush(); }
        for (const frame of data.events) this.take(frame);
        for (const [channel, position] of Object.entries(data.after)) this.after[channel] ??= position;
      } catch (error) {
        if (error.status === 401) { this.ended(); return; }
        if (error.name !== "AbortError") {
          if (!this.socket) this.tell("offline");
          await new Promise((r) => setTimeout(r, 1000 * (error.retryAfterS || 1 + Math.random())));
        }
      }
    }
  }

  take(frame) {
    const position = frame.sequence ?? frame.position;
    if (position !== undefined && position !== null && frame.channel) {
      const seen = this.after[frame.channel];
      if (typeof seen === "number" && typeof position === "number" && position <= seen) return;
      if (typeof seen === "string" && seen === position) return;
      this.after[frame.channel] = position;
    }
    if (frame.event === "unsubscribed") delete this.after[frame.data.channel || frame.channel];
    this.onevent(frame);
  }

  ended() {
    if (this.stopped) return;
    this.tell("ended");
    this.stop();
  }

  /* -- the outbox: sends of one conversation leave one after the other */
  send(conversationId, content, key) {
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
