"use strict";

const find = (selector) => document.querySelector(selector);
const form = find("#say");
const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/socket");

socket.onopen = () => {
  find("#status").textContent = "";
  find("#say button").disabled = false;
};

socket.onmessage = ({ data }) => {
  const { user, text } = JSON.parse(data);
  const line = document.createElement("li");
  const name = document.createElement("b");
  // `textContent` shows any text as it is, so a line cannot bring HTML into the page.
  name.textContent = user;
  line.append(name, " ", text);
  find("#lines").append(line);
  line.scrollIntoView();
};

socket.onclose = ({ code }) => {
  find("#say button").disabled = true;
  // The server closes with this code when the session has ended. The page is then the sign-in form.
  if (code === 4001) location.replace("/");
  else find("#status").textContent = "The connection is lost. Reload the page to connect again.";
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  socket.send(form.elements.text.value);
  form.reset();
});

// Ends by itself when the session ends: the server then answers 401, and a browser does not ask again.
new EventSource("/sent").onmessage = ({ data }) => {
  find("#sent").textContent = data;
};
