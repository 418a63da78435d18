// A worker that is a hidden frame: browsers start no real one from file://, and the site's search
// needs one.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      this.frame = frame;
      const there = frame.contentWindow;
      window.addEventListener("message", (event) => {
        if (event.source !== there) return;
        const copy = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(copy);
        if (this.onmessage) this.onmessage(copy);
      });
      there.document.open();
      there.document.write(`<script>
        postMessage = (data) => parent.postMessage(data, "*");
        importScripts = (...urls) => urls.reduce((done, url) => done.then(() => new Promise((ok) => {
          const script = document.createElement("script");
          script.src = url;
          script.onload = script.onerror = ok;
          document.body.appendChild(script);
        })), Promise.resolve());
      <\/script><body><script src="${url}"><\/script>`);
      there.document.close();
      this.ready = new Promise((ok) => { there.onload = ok; });
    }
    postMessage(data) {
      const there = this.frame.contentWindow;
      this.ready.then(() => there.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.frame.remove();
    }
  };
}
