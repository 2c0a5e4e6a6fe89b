"use strict";

const AGES = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100];
const element = (id) => document.getElementById(id);
const state = { session: null, face: 0, age: 40, loading: false };

function say(text, busy = false) {
  const message = element("message");
  message.hidden = !text;
  message.textContent = text;
  message.classList.toggle("busy", busy);
}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Error("The demo does not answer. Is its command still running?");
  }
  const body = await response.json();
  if (!response.ok) throw new Error(body.error);
  return body;
}

const url = (path) => `session/${state.session}/${state.face}/${path}`;

async function open(address, form) {
  if (state.session) forget();
  form.append("model", element("model").value);
  say("Looking for faces …", true);
  try {
    const found = await answer(fetch(address, { method: "POST", body: form }));
    Object.assign(state, { session: found.session, face: 0 });
    showFaces(found.faces);
    element("start").hidden = true;
    element("result").hidden = false;
    say(found.faces > 1 ? `Found ${found.faces} faces: choose one.` : "", true);
    chooseFace(0);
  } catch (error) {
    say(error.message);
  }
}

function forget() {
  fetch(`session/${state.session}`, { method: "DELETE", keepalive: true });
  state.session = null;
}

function showFaces(count) {
  const buttons = [];
  for (let face = 0; face < count; face++) {
    const button = document.createElement("button");
    button.type = "button";
    button.innerHTML = `<img alt="Face ${face + 1}" src="session/${state.session}/${face}/input.png">`;
    button.onclick = () => chooseFace(face);
    buttons.push(button);
  }
  element("faces").replaceChildren(...buttons);
  element("faces").hidden = count < 2;
}

function chooseFace(face) {
  state.face = face;
  [...element("faces").children].forEach((b, i) => b.setAttribute("aria-pressed", i === face));
  element("input").src = url("input.png");
  element("save-strip").href = url("strip.png");
  const buttons = AGES.map((age) => {
    const button = document.createElement("button");
    button.type = "button";
    button.innerHTML = `<img alt="At ${age}" src="${url(`age/${age}.png`)}">${age}`;
    button.onclick = () => chooseAge(age);
    return button;
  });
  element("strip").replaceChildren(...buttons);
  chooseAge(state.age);
}

function chooseAge(age) {
  state.age = age;
  element("age").value = age;
  element("years").textContent = age;
  [...element("strip").children].forEach((b, i) => b.setAttribute("aria-pressed", AGES[i] === age));
  element("save-image").href = url(`age/${age}.png`);
  element("save-image").download = `age_${age}.png`;
  if (!state.loading) showAge();
}

// One picture is asked for at a time; when it is there, the slider's present place is asked for.
// So a fast drag never queues old pictures, and the last one shown is always the one chosen.
async function showAge() {
  const wanted = url(`age/${state.age}.png`);
  state.loading = true;
  try {
    const response = await fetch(wanted);
    if (!response.ok) throw new Error((await response.json()).error);
    const picture = URL.createObjectURL(await response.blob());
    const image = element("aged");
    URL.revokeObjectURL(image.src);
    image.src = picture;
    image.dataset.shows = wanted;
    await image.decode();
  } catch (error) {
    say(error.message);
    state.loading = false;
    return;
  }
  state.loading = false;
  if (state.session && wanted !== url(`age/${state.age}.png`)) showAge();
}

function upload(file) {
  if (!file) return;
  const form = new FormData();
  form.append("photo", file);
  open("photo", form);
}

async function useWebcam() {
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
  element("camera").hidden = true;
}

function shoot() {
  const video = element("preview");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  stopWebcam();
  canvas.toBlob(upload, "image/jpeg", 0.95);
}

element("file").onchange = (event) => { upload(event.target.files[0]); event.target.value = ""; };
element("example").onclick = () => open("example", new FormData());
element("webcam").onclick = useWebcam;
element("shoot").onclick = shoot;
element("cancel").onclick = stopWebcam;
element("age").oninput = (event) => chooseAge(Number(event.target.value));
element("divider").oninput = (event) => element("compare").style.setProperty("--cut", `${event.target.value}%`);
element("again").onclick = () => {
  forget();
  element("result").hidden = true;
  element("start").hidden = false;
  say("");
};
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  element("drop").addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", over);
    if (name === "drop") upload(event.dataTransfer.files[0]);
  });
}
window.addEventListener("pagehide", () => { if (state.session) forget(); });

answer(fetch("models")).then((names) => {
  element("model").replaceChildren(...names.map((name) => new Option(name, name)));
  element("model-choice").hidden = names.length < 2;
}).catch((error) => say(error.message));
