// Calls of the server. An answer that is an error is thrown with its one line.

async function failure(answer) {
  try {
    const said = (await answer.json()).error;
    return new Error(typeof said === "string" ? said : said.message);
  } catch {
    return new Error(`the server answered with status ${answer.status}`);
  }
}

export async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw await failure(answer);
  return answer.json();
}

const send = (path, fields, signal) =>
  fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(fields), signal });

export async function post(path, fields, signal) {
  const answer = await send(path, fields, signal);
  if (!answer.ok) throw await failure(answer);
  return answer.json();
}

const BUDGET = 8; // milliseconds that lines are taken before the browser may draw

// Ends behind the next frame; soon also where none is drawn, as on a hidden page.
const frame = () =>
  new Promise((go) => {
    setTimeout(go, 100);
    requestAnimationFrame(() => setTimeout(go));
  });

// Calls `take` with each line of the answer as it comes. `signal` ends it, and with it the device's work.
export async function stream(path, fields, signal, take) {
  const answer = await send(path, fields, signal);
  if (!answer.ok) throw await failure(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", begun = performance.now();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (performance.now() - begun > BUDGET) {
        await frame();
        begun = performance.now();
      }
      if (line) take(JSON.parse(line));
    }
  }
}
