// Talking to the explorer's server; an answer that is an error becomes an Error with its one sentence.

export async function ask(path, body, signal) {
  const post = body !== undefined;
  const raw = body instanceof Blob;
  const answer = await reach(`/api/${path}`, {
    method: post ? "POST" : "GET",
    headers: post ? { "Content-Type": raw ? "application/octet-stream" : "application/json" } : {},
    body: !post || raw ? body : JSON.stringify(body),
    signal,
  });
  return answer.json();
}

// The lines of a drawing, one after the other. Aborting `signal` stops the drawing on the server, too.
export async function* lines(path, body, signal) {
  const answer = await reach(`/api/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  let rest = "";
  for await (const text of texts(answer.body.getReader())) {
    const parts = (rest + text).split("\n");
    rest = parts.pop();
    for (const part of parts) {
      const line = JSON.parse(part);
      if (line.error) throw new Error(line.error);
      yield line;
    }
  }
}

async function* texts(reader) {
  const decoder = new TextDecoder();
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    yield decoder.decode(next.value, { stream: true });
  }
}

async function reach(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the explorer does not answer; is it still running?");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Error(told.error || `the explorer answered ${answer.status}`);
}

// One sentence at the top of the page; who gave up on a request is told nothing.
export function report(error) {
  if (error.name === "AbortError") return;
  const place = document.getElementById("problem");
  place.textContent = error.message;
  place.hidden = false;
}

export function clearProblem() {
  document.getElementById("problem").hidden = true;
}

// Runs the newest of what it is asked for: one at a time, and what was overtaken while waiting is never begun.
export class Latest {
  #next = null;
  #running = false;

  async run(work) {
    this.#next = work;
    if (this.#running) return;
    this.#running = true;
    while (this.#next) {
      const current = this.#next;
      this.#next = null;
      await current(() => this.#next !== null).catch(report);
    }
    this.#running = false;
  }
}

// Runs the newest alone: what still runs is aborted. `wait` in milliseconds, for what follows a slider.
export class Newest {
  #controller = null;

  async run(work, wait = 0) {
    this.stop();
    const controller = (this.#controller = new AbortController());
    try {
      if (wait) await new Promise((done) => setTimeout(done, wait));
      if (!controller.signal.aborted) await work(controller.signal);
    } catch (error) {
      if (!controller.signal.aborted) report(error);
    }
  }

  stop() {
    if (this.#controller) this.#controller.abort();
  }
}
