// The WebSocket class of browsers, as far as runnel.js uses it, over the strict socket of this folder. Node has no such
// class before version 22.
import { WsSocket } from './ws_socket.mjs';

export function webSocketClass(idleMs) {
  return class WebSocket {
    onopen = null;
    onmessage = null;
    onclose = null;
    onerror = null;
    readyState = 0;
    protocol = '';

    constructor(url, [protocol] = []) {
      WsSocket.open(url, {
        protocol, idleMs,
        onMessage: (data) => this.onmessage?.({ data }),
        onEnd: (error) => this.#end(error.code ?? 1006),
      }).then((socket) => {
        this.socket = socket;
        if (this.readyState !== 0) return socket.close();
        Object.assign(this, { readyState: 1, protocol });
        this.onopen?.({});
      }, () => this.#end(1006));
    }

    send(data) {
      this.socket.send(data);
    }

    close() {
      this.readyState = 2;
      this.socket?.close();
    }

    #end(code) {
      if (this.readyState === 3) return;
      this.readyState = 3;
      if (code === 1006) this.onerror?.({});
      this.onclose?.({ code, reason: '' });
    }
  };
}
