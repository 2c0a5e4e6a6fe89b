"use strict";

const AGES = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100];
const element = (id) => document.getElementById(id);
const state = {
  session: null, source: null, model: "", openings: 0, faces: 1, references: 0,
  face: 0, age: 40, strength: 1, reference: null, mix: 1, keep: null, view: "face", all: false,
  loading: null, measuring: 0, filling: 0, maxUpload: Infinity,
};

// Messages and requests

function say(text, busy = false) {
  const message = element("message");
  message.hidden = !text;
  message.textContent = text;
  message.classList.toggle("busy", busy);
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function get(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("The demo does not answer. Is its command still running?");
  }
  if (response.ok) return response;
  const error = new Error(await reason(response));
  error.retryAfter = Number(response.headers.get("Retry-After"));
  throw error;
}

// What went wrong. An answer that is not the demo's own comes from a proxy before it.
async function reason(response) {
  if (response.headers.get("Content-Type")?.startsWith("application/json")) {
    return (await response.json()).error;
  }
  const known = { 413: "the picture is too large for it", 504: "the demo took too long for it" };
  const why = known[response.status] ?? "it could not reach the demo";
  return `The server in front of the demo answered ${response.status}: ${why}.`;
}

// Sends a picture, if any, with further fields.
async function post(address, file, fields = {}) {
  // The demo ends the connection of a larger one, which a browser cannot tell from a failure.
  if (file && file.size > 1e6 * state.maxUpload) {
    throw new Error(`The picture is larger than ${state.maxUpload} MB.`);
  }
  const form = new FormData();
  if (file) form.append("photo", file);
  for (const name in fields) form.append(name, fields[name]);
  return (await get(address, { method: "POST", body: form })).json();
}

// What the present choices are called

const url = (path) => `session/${state.session}/${path}`;
const ofFace = (path) => url(`${state.face}/${path}`);

function edits() {
  const query = new URLSearchParams();
  if (state.strength !== 1) query.set("strength", state.strength);
  if (state.reference !== null) query.set("reference", state.reference);
  if (state.reference !== null && state.mix !== 1) query.set("mix", state.mix);
  if (state.keep !== null) query.set("keep", state.keep);
  return query.toString() && `?${query}`;
}

function picture(kind) {
  if (state.view === "face") return ofFace(`age/${state.age}.png${edits()}`);
  const faces = state.all ? [...Array(state.faces).keys()] : [state.face];
  return url(`${faces}/photo/${state.age}.${kind}${edits()}`);
}

// A photo

async function open(address, file) {
  const opening = ++state.openings;
  stopWebcam();
  say("Looking for faces …", true);
  let found;
  try {
    found = await post(address, file, { model: element("model").value });
  } catch (error) {
    if (opening !== state.openings) return;
    if (state.session) element("model").value = state.model; // still the one that is shown
    return say(error.message);
  }
  if (opening !== state.openings) return forget(found.session); // another was chosen meanwhile
  forget(state.session);
  Object.assign(state, {
    session: found.session, source: [address, file], model: found.model, faces: found.faces,
    references: 0, reference: null,
  });
  URL.revokeObjectURL(element("aged").src);
  element("aged").removeAttribute("src"); // of the photo before
  element("keep-choice").hidden = !found.keeps;
  element("start").hidden = true;
  element("result").hidden = false;
  say(found.faces > 1 ? `Found ${found.faces} faces: choose one.` : "", true);
  showFaces();
  showReferences();
  chooseFace(0);
}

function forget(session) {
  if (session) fetch(`session/${session}`, { method: "DELETE", keepalive: true });
}

function close() {
  state.openings++; // what is being opened is no longer wanted
  forget(state.session);
  state.session = null;
  element("result").hidden = true;
  element("start").hidden = false;
  say("");
}

function pictureButton(image, alt, text, onclick) {
  const button = document.createElement("button");
  button.type = "button";
  button.innerHTML = `<img alt="${alt}">${text}`;
  if (image) button.firstElementChild.src = image;
  button.onclick = onclick;
  return button;
}

function press(group, chosen) {
  [...group.querySelectorAll("button")].forEach((b, i) => b.setAttribute("aria-pressed", i === chosen));
}

function showFaces() {
  const count = state.faces;
  element("faces").hidden = count < 2;
  element("faces").replaceChildren(...[...Array(count).keys()].map((face) =>
    pictureButton(url(`${face}/input.png`), `Face ${face + 1}`, "", () => chooseFace(face))));
}

function chooseFace(face) {
  state.face = face;
  press(element("faces"), face);
  showBefore();
  showStrip();
}

function showBefore() {
  element("input").src = state.view === "face" ? ofFace("input.png") : url("photo.jpg");
}

function showStrip() {
  element("strip").replaceChildren(...AGES.map((age) =>
    pictureButton("", `At ${age}`, age, () => chooseAge(age))));
  show();
  fillStrip();
}

// One after the other, so that the slider need not wait for all of them.
async function fillStrip() {
  const filling = ++state.filling;
  const images = element("strip").querySelectorAll("img");
  for (const [at, age] of AGES.entries()) {
    while (state.loading) await state.loading;
    if (filling !== state.filling || !state.session) return;
    images[at].src = ofFace(`age/${age}.png${edits()}`);
    await images[at].decode().catch(() => {}); // the picture above says what is wrong
  }
}

function chooseAge(age) {
  state.age = age;
  show();
}

// Makes the page show what is chosen.
function show() {
  element("age").value = state.age;
  element("years").textContent = state.age;
  element("strength-value").textContent = state.strength;
  element("mix-value").textContent = state.mix;
  element("keep-value").textContent = state.keep ?? "auto";
  element("keep-auto").checked = state.keep === null;
  press(element("strip"), AGES.indexOf(state.age));
  element("all-choice").hidden = state.faces < 2 || state.view === "face";
  const name = state.view === "face" ? "age" : "photo_age";
  element("save-image").href = picture("png");
  element("save-image").download = `${name}_${state.age}.png`;
  element("save-strip").href = ofFace(`strip.png${edits()}`);
  state.loading ??= load().finally(() => { state.loading = null; });
}

// One picture is asked for at a time; when it is there, what is chosen by then is asked for. So a
// fast drag never queues old pictures, and the last one shown is always the one chosen.
async function load() {
  let shown = null;
  let tries = 0;
  while (state.session && shown !== picture("jpg")) {
    const wanted = picture("jpg");
    const waiting = setTimeout(() => element("compare").classList.add("waiting"), 300);
    element("measured").textContent = "\u00a0"; // what was measured belongs to another picture
    try {
      const blob = await (await get(wanted)).blob();
      const image = element("aged");
      URL.revokeObjectURL(image.src);
      image.src = URL.createObjectURL(blob);
      await image.decode();
      image.dataset.shows = shown = wanted;
      if (!element("message").classList.contains("busy")) say("");
    } catch (error) {
      if (wanted !== picture("jpg")) continue; // another one is wanted by now
      if (error.retryAfter && tries++ < 5) { // many people are using the demo
        await pause(1000 * error.retryAfter);
        continue;
      }
      say(error.message);
      return;
    } finally {
      clearTimeout(waiting);
      element("compare").classList.remove("waiting");
    }
  }
  if (state.session) measure();
}

// Numbers of the picture shown, once the sliders rest.
async function measure() {
  const measuring = ++state.measuring;
  const shown = picture("jpg");
  const stillShown = () => measuring === state.measuring && shown === picture("jpg");
  await new Promise((resolve) => setTimeout(resolve, 150));
  if (!stillShown()) return;
  try {
    const found = await (await get(ofFace(`age/${state.age}.json${edits()}`))).json();
    if (!stillShown()) return;
    const parts = [];
    if ("measured_age" in found) {
      parts.push(`own regressor: looks ${Math.round(found.measured_age)} years old`);
    }
    if ("identity" in found) parts.push(`identity similarity ${found.identity.toFixed(2)}`);
    if ("judged_age" in found) {
      parts.push(`independent judge (dlib age-v1): ${Math.round(found.judged_age)} years`);
    }
    if ("distance" in found) {
      const same = found.distance < 0.6 ? "the same person" : "another person";
      parts.push(`dlib face distance ${found.distance.toFixed(2)} (${same})`);
    }
    element("measured").textContent = parts.join(" · ");
  } catch (error) {
    if (stillShown()) say(error.message);
  }
}

// References

function showReferences() {
  const own = document.createElement("button");
  Object.assign(own, { type: "button", className: "text", textContent: "its own" });
  own.onclick = () => chooseReference(null);
  const others = [...Array(state.references).keys()].map((number) =>
    pictureButton(url(`reference/${number}.png`), `Reference ${number + 1}`, "",
      () => chooseReference(number)));
  const add = document.createElement("label");
  add.className = "button";
  add.innerHTML = `of another face … <input id="reference-file" type="file" accept="image/*">`;
  chosenFile(add.firstElementChild, addReference);
  element("references").replaceChildren(own, ...others, add);
  press(element("references"), state.reference === null ? 0 : state.reference + 1);
  element("mix-row").hidden = state.reference === null;
}

async function addReference(file) {
  const { session } = state;
  say("Looking for a face …", true);
  try {
    const { reference } = await post(url("reference"), file);
    if (session !== state.session) return;
    state.references = reference + 1;
    say("");
    chooseReference(reference);
  } catch (error) {
    if (session === state.session) say(error.message);
  }
}

function chooseReference(number) {
  state.reference = number;
  showReferences();
  showStrip();
}

// Video

// It is started, asked for until it is ready, and then fetched: no request stays silent for long.
async function saveVideo() {
  const { session } = state;
  const [stateOf, file] = [url("video"), url("video.mp4")];
  const button = element("save-video");
  button.disabled = true;
  button.textContent = "Video …";
  try {
    let video = await (await get(ofFace(`video${edits()}`), { method: "POST" })).json();
    while (!video.ready && !video.error && session === state.session) {
      await pause(400);
      video = await (await get(stateOf)).json();
      button.textContent = `Video … ${Math.round(100 * video.done)} %`;
    }
    if (video.error) throw new Error(video.error);
    if (session !== state.session) return;
    const link = document.createElement("a");
    Object.assign(link, { href: file, download: "ageing.mp4", target: "_blank" });
    link.click();
  } catch (error) {
    if (session === state.session) say(error.message);
  } finally {
    button.disabled = false;
    button.textContent = "Video";
  }
}

// The webcam

async function useWebcam() {
  stopWebcam();
  if (!navigator.mediaDevices) { // browsers hide the camera from pages that came over plain http
    return say("Browsers give the webcam to pages on https or localhost only. Choose a photo.");
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
    element("preview").srcObject = stream;
    element("camera").hidden = false;
  } catch {
    say("The webcam cannot be used. Allow it in the browser, or choose a photo.");
  }
}

function stopWebcam() {
  const stream = element("preview").srcObject;
  if (stream) stream.getTracks().forEach((track) => track.stop());
  element("preview").srcObject = null;
  element("shoot").disabled = true;
  element("camera").hidden = true;
}

function shoot() {
  const video = element("preview");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((file) => open("photo", file), "image/jpeg", 0.95);
}

// What the controls do

// The same file can be chosen again: after an error, or when it was changed.
function chosenFile(input, use) {
  input.onchange = () => {
    const [file] = input.files;
    input.value = "";
    if (file) use(file);
  };
}

const number = (id, name, then) => {
  element(id).oninput = (event) => { state[name] = Number(event.target.value); show(); };
  element(id).onchange = then;
};
number("age", "age", null);
number("strength", "strength", showStrip); // the strip follows when the slider is let go
number("mix", "mix", showStrip);
number("keep", "keep", showStrip);
element("keep-auto").onchange = ({ target }) => {
  state.keep = target.checked ? null : Number(element("keep").value);
  showStrip();
};
chosenFile(element("file"), (file) => open("photo", file));
element("example").onclick = () => open("example");
element("model").onchange = () => { if (state.session) open(...state.source); };
element("webcam").onclick = useWebcam;
element("preview").onloadeddata = () => { element("shoot").disabled = false; };
element("shoot").onclick = shoot;
element("cancel").onclick = stopWebcam;
element("again").onclick = close;
element("save-video").onclick = saveVideo;
element("all").onchange = ({ target }) => { state.all = target.checked; show(); };
for (const choice of document.querySelectorAll("input[name=view]")) {
  choice.onchange = () => { state.view = choice.value; showBefore(); show(); };
}
element("divider").oninput = ({ target }) =>
  element("compare").style.setProperty("--cut", `${target.value}%`);
element("input").onload = ({ target }) => {
  element("compare").style.setProperty("--ratio", target.naturalWidth / target.naturalHeight);
};
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", over);
    if (name === "drop" && event.dataTransfer.files[0]) open("photo", event.dataTransfer.files[0]);
  });
}
// A page that the browser keeps, to come back to, keeps its photo until that is idle for long.
window.addEventListener("pagehide", (event) => { if (!event.persisted) forget(state.session); });

get("settings").then((response) => response.json()).then(({ models, max_upload_mb }) => {
  state.maxUpload = max_upload_mb;
  element("model").replaceChildren(...models.map((name) => new Option(name, name)));
  element("model-choice").hidden = models.length < 2;
}).catch((error) => say(error.message));
