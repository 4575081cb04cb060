// Server-sent events, taken from a stream in pieces of any size.

export class EventParser {
  #rest = "";
  #data = [];

  /** Takes the next piece of text; returns the data of the events that it completes. */
  feed(text) {
    const done = [];
    let buffer = this.#rest + text;
    // A "\r" at the end may be half of "\r\n": it waits for the next piece.
    const held = buffer.endsWith("\r") ? 1 : 0;
    const lines = buffer.slice(0, buffer.length - held).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() + buffer.slice(buffer.length - held);
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length) done.push(this.#data.join("\n"));
        this.#data = [];
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    return done;
  }
}
