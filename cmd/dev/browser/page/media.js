// The service worker: Element asks for media at their old paths and without a
// token, and leaves it to its service worker to ask as the server wants it.

const old = /\/_matrix\/media\/(r0|v3)\/(download|thumbnail)\//;

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
    if (event.request.method === "GET" && old.test(event.request.url)) event.respondWith(askWithToken(event));
});

async function askWithToken({ request, clientId }) {
    const page = await self.clients.get(clientId);
    const token = await new Promise((resolve) => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = ({ data }) => resolve(data);
        page.postMessage("token", [port2]);
    });
    const url = request.url.replace(old, "/_matrix/client/v1/media/$2/");
    return fetch(url, { headers: { Authorization: `Bearer ${token}` } });
}
