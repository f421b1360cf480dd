// Browsers start no worker for a page on disk, and the search runs in one. There it runs in a hidden frame.
// The theme's script asks for the name IFrameWorker and awaits importScripts.

function load(page, url) {
  return new Promise((done, failed) => {
    const script = Object.assign(page.createElement("script"), { src: url, onload: done, onerror: failed });
    page.body.append(script);
  });
}

class IFrameWorker extends EventTarget {
  constructor(url) {
    super();
    const frame = Object.assign(document.createElement("iframe"), { hidden: true });
    document.body.append(frame);
    this.inside = frame.contentWindow;
    this.inside.document.open();
    this.inside.document.write("<body></body>");
    this.inside.document.close();
    this.inside.postMessage = (data) => setTimeout(() => this.dispatchEvent(new MessageEvent("message", { data })));
    this.inside.importScripts = async (...urls) => {
      for (const each of urls) await load(this.inside.document, each);
    };
    this.ready = load(this.inside.document, url);
  }

  postMessage(data) {
    this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
  }
}

if (location.protocol === "file:") Object.assign(window, { IFrameWorker, Worker: IFrameWorker });
