/* The page: sign in, conversations, live chat, and the truth about the connection in words. */

import { Connection, Login, request } from "./client.js";

const $ = (id) => document.getElementById(id);
const WORDS = {
  live: "Connected", connecting: "Connecting …", polling: "Connected by polling (no live socket)",
  offline: "Offline – messages wait here", ended: "Signed out by the server",
};
const PAGE = 30;
let login = null, connection = null, chosen = null;
const conversations = new Map();   // id -> {…, people: Map, messages: Map by id, unread, cursor}

/* -- signing in */
for (const link of document.querySelectorAll("[data-show]")) {
  link.addEventListener("click", () => {
    for (const name of ["sign-in", "register"]) $(name).hidden = name !== link.dataset.show;
    $(link.dataset.show).querySelector("input").focus();
  });
}
for (const [form, path] of [["sign-in", "/v1/auth/login"], ["register", "/v1/auth/register"]]) {
  $(form).addEventListener("submit", (event) => submit(event, async (fields) => begin(await request("POST", path, { body: fields }))));
}

async function submit(event, act) {
  event.preventDefault();
  const form = event.target, problem = form.querySelector(".problem"), button = form.querySelector("[type=submit]");
  problem.hidden = true;
  button.disabled = true;
  try { await act(Object.fromEntries(new FormData(form))); } catch (error) {
    problem.textContent = error.message || "That did not work.";
    problem.hidden = false;
  }
  button.disabled = false;
}

function keep() { sessionStorage.setItem("login", JSON.stringify({ ...login, onchange: undefined, refreshing: undefined })); }

async function begin(data) {
  login = new Login(data);
  login.onchange = keep;
  keep();
  $("welcome").hidden = true;
  $("app").hidden = $("sign-out").hidden = false;
  $("title").textContent = `SecureConnect – ${login.user.display_name}`;
  connection = new Connection(login, { onevent: happened, onstate: showState });
  showState("connecting");
  await loadConversations().catch(() => {});
  connection.start();
  $("conversations").focus();
}

$("sign-out").addEventListener("click", async () => {
  try { await request("POST", "/v1/auth/logout", { body: {}, token: login.access_token }); } catch { /* the session ends here all the same */ }
  leave();
});

function leave() {
  connection?.stop();
  sessionStorage.clear();
  location.reload();
}

function showState(state) {
  $("state").dataset.state = state;
  $("state").textContent = WORDS[state];
  if (state === "live") loadConversations().catch(() => {});
  if (state === "ended") { sessionStorage.clear(); }
}

/* -- conversations */
async function loadConversations() {
  const data = await request("GET", "/v1/conversations?limit=100", { token: await login.access() });
  for (const row of data.conversations) {
    const known = conversations.get(row.conversation_id);
    if (known) Object.assign(known, row);
    else conversations.set(row.conversation_id, { ...row, people: new Map(), messages: new Map(), unread: 0, cursor: undefined });
  }
  const missing = [...conversations.values()].filter((c) => !c.people.size);
  await Promise.all(missing.slice(0, 20).map((c) => loadPeople(c).catch(() => {})));
  showConversations();
}

async function loadPeople(conversation) {
  const data = await request("GET", `/v1/conversations/${conversation.conversation_id}/participants`, { token: await login.access() });
  conversation.people = new Map(data.participants.map((p) => [p.user_id, p.display_name || p.username]));
}

function nameOf(conversation) {
  const others = [...conversation.people].filter(([id]) => id !== login.user.user_id).map(([, name]) => name);
  return conversation.title || others.join(", ") || "Conversation";
}

function latest(conversation) { return [...conversation.messages.values()].at(-1); }

function showConversations() {
  const list = [...conversations.values()].sort((a, b) => (b.updated_at || "").localeCompare(a.updated_at || ""));
  $("no-conversations").hidden = list.length > 0;
  $("conversations").replaceChildren(...list.map((conversation) => {
    const row = element("li", { role: "option", id: `c-${conversation.conversation_id}` });
    row.setAttribute("aria-selected", conversation === chosen);
    row.append(element("span", { className: "name", textContent: nameOf(conversation) }));
    if (conversation.unread) row.append(element("span", { className: "count", textContent: conversation.unread, ariaLabel: `${conversation.unread} new` }));
    row.append(element("span", { className: "last", textContent: preview(latest(conversation)) }));
    row.addEventListener("click", () => choose(conversation));
    return row;
  }));
}

function preview(message) { return !message ? "" : message.deleted_at ? "Deleted message" : message.content; }

$("conversations").addEventListener("keydown", (event) => {
  const rows = [...$("conversations").children], at = rows.findIndex((r) => r.getAttribute("aria-selected") === "true");
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && rows.length) { event.preventDefault(); rows[Math.max(0, Math.min(rows.length - 1, at + step))].click(); }
  if (event.key === "Enter" && chosen) { event.preventDefault(); $("text").focus(); }
});

$("new").addEventListener("submit", (event) => submit(event, async ({ names }) => {
  const people = names.split(",").map((n) => n.trim()).filter(Boolean);
  const direct = people.length === 1;
  const body = { type: direct ? "direct" : "group", title: direct ? undefined : names, participant_usernames: people, is_e2ee_enabled: false };
  const made = await request("POST", "/v1/conversations", { body, token: await login.access() });
  event.target.reset();
  await loadConversations();
  choose(conversations.get(made.conversation_id));
}));

/* -- one conversation */
async function choose(conversation) {
  chosen = conversation;
  conversation.unread = 0;
  $("app").classList.add("in-chat");
  $("back").hidden = false;
  $("chat-title").textContent = nameOf(conversation);
  $("composer").hidden = false;
  showConversations();
  showMessages();
  if (conversation.cursor === undefined) await older(conversation).catch(() => {});
  $("text").focus();
}

$("back").addEventListener("click", () => { $("app").classList.remove("in-chat"); $("back").hidden = true; $("conversations").focus(); });
$("older").addEventListener("click", () => older(chosen));

async function older(conversation) {
  const query = new URLSearchParams({ conversation_id: conversation.conversation_id, limit: PAGE });
  if (conversation.cursor) query.set("cursor", conversation.cursor);
  const data = await request("GET", `/v1/messages?${query}`, { token: await login.access() });
  conversation.cursor = data.has_more ? data.next_cursor : null;
  for (const message of data.messages) if (!conversation.messages.has(message.message_id)) conversation.messages.set(message.message_id, message);
  order(conversation);
  if (conversation === chosen) showMessages();
}

function order(conversation) {
  const place = (m) => m.sequence ?? Infinity;   // what is not stored yet stays at the end, in the order of sending
  conversation.messages = new Map([...conversation.messages].sort(([, a], [, b]) => place(a) - place(b) || 0));
}

function showMessages() {
  const box = $("messages"), atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
  $("older").hidden = !chosen.cursor;
  const rows = new Map([...box.children].map((row) => [row.dataset.id, row]));
  const wanted = [...chosen.messages.values()].map((message) => {
    const key = message.key || message.message_id, mark = JSON.stringify([message.content, message.state, message.edited_at, message.deleted_at, message.sequence]);
    const old = rows.get(key);
    if (old && old.mark === mark && old.conversation === chosen) return old;
    const row = showMessage(message, key);
    row.mark = mark;
    row.conversation = chosen;
    return row;
  });
  box.replaceChildren(...wanted);
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function showMessage(message, key) {
  const mine = message.sender_id === login.user.user_id;
  const row = element("li", { className: mine ? "mine" : "" });
  row.dataset.id = key;
  row.dataset.state = message.state || "stored";
  if (!mine) row.append(element("span", { className: "who", textContent: chosen.people.get(message.sender_id) || "Someone" }));
  row.append(element("p", { className: "text", textContent: message.deleted_at ? "This message was deleted." : message.is_encrypted ? "Encrypted message" : message.content }));
  row.append(element("span", { className: "when", textContent: when(message) }));
  return row;
}

function when(message) {
  if (message.state === "sending") return "Sending …";
  if (message.state === "failed") return `Not sent: ${message.problem}`;
  const time = new Date(message.sent_at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return time + (message.edited_at ? " · edited" : "");
}

$("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value.trim(), conversation = chosen;
  if (!text) return;
  $("text").value = "";
  const key = crypto.randomUUID();
  const mine = { key, message_id: key, sender_id: login.user.user_id, content: text, state: "sending" };
  conversation.messages.set(key, mine);
  showMessages();
  $("messages").scrollTop = $("messages").scrollHeight;
  try {
    const stored = await connection.send(conversation.conversation_id, text, key);
    conversation.messages.delete(key);
    put(conversation, stored);
  } catch (error) {
    mine.state = "failed";
    mine.problem = error.message;
  }
  if (conversation === chosen) showMessages();
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("composer").requestSubmit(); }
});

/* -- what happens */
function put(conversation, message) {
  for (const [id, m] of conversation.messages) if (m.key && m.key === message.client_message_id) conversation.messages.delete(id);
  conversation.messages.set(message.message_id, { ...conversation.messages.get(message.message_id), ...message, state: undefined, key: undefined });
  order(conversation);
}

async function happened(frame) {
  if (frame.event === "conversation.added" || frame.event === "conversation.removed") { await loadConversations().catch(() => {}); return; }
  if (frame.event === "gap") { await reload(frame.channel); return; }
  const id = (frame.channel || "").replace("conversation:", ""), data = frame.data;
  if (frame.event === "message.created" && !conversations.has(id)) await loadConversations().catch(() => {});
  const conversation = conversations.get(id);
  if (!conversation) return;
  if (frame.event === "message.created") {
    put(conversation, data);
    conversation.updated_at = data.sent_at;
    if (conversation !== chosen && data.sender_id !== login.user.user_id) conversation.unread += 1;
  } else if (frame.event === "message.edited" || frame.event === "message.deleted") {
    const old = conversation.messages.get(data.message_id);
    if (old) Object.assign(old, data, { sequence: old.sequence });
  } else if (frame.event.startsWith("member.")) {
    await loadPeople(conversation).catch(() => {});
  }
  showConversations();
  if (conversation === chosen) showMessages();
}

async function reload(channel) {
  const conversation = conversations.get(channel.replace("conversation:", ""));
  if (!conversation) return;
  conversation.messages = new Map([...conversation.messages].filter(([, m]) => m.state));
  conversation.cursor = undefined;
  await older(conversation).catch(() => {});
}

function element(name, properties) { return Object.assign(document.createElement(name), properties); }

const kept = sessionStorage.getItem("login");
if (kept) begin(JSON.parse(kept)).catch(() => { sessionStorage.clear(); location.reload(); });
else document.querySelector("#sign-in input").focus();
