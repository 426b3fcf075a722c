// Encrypted attachments, as a client makes them: the bytes are encrypted here,
// the server stores what it cannot read, and the key travels in the encrypted
// event.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#sending-encrypted-attachments

import { webcrypto } from "node:crypto";
import { crc32, deflateSync } from "node:zlib";

const { subtle } = webcrypto;
const unpadded = (bytes) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");

/**
 * Encrypts bytes with a new key.
 *
 * @param {Uint8Array} bytes
 * @returns {Promise<{data: Uint8Array, info: object}>} info is an EncryptedFile without its url
 */
export async function encryptAttachment(bytes) {
    const key = await subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
    const iv = new Uint8Array(16); // the upper half is random, the lower half counts from 0
    webcrypto.getRandomValues(iv.subarray(0, 8));
    const data = new Uint8Array(await subtle.encrypt({ name: "AES-CTR", counter: iv, length: 64 }, key, bytes));
    const jwk = await subtle.exportKey("jwk", key);
    const info = {
        v: "v2",
        key: { kty: "oct", key_ops: ["encrypt", "decrypt"], alg: "A256CTR", k: jwk.k, ext: true },
        iv: unpadded(iv),
        hashes: { sha256: unpadded(await subtle.digest("SHA-256", data)) },
    };
    return { data, info };
}

/**
 * Checks the hash of data and decrypts it.
 *
 * @param {Uint8Array} data
 * @param {object} info an EncryptedFile
 * @returns {Promise<Uint8Array>}
 */
export async function decryptAttachment(data, info) {
    if (unpadded(await subtle.digest("SHA-256", data)) !== info.hashes.sha256) {
        throw new Error("the downloaded attachment does not have the hash of the uploaded one");
    }
    const key = await subtle.importKey("jwk", info.key, { name: "AES-CTR" }, false, ["decrypt"]);
    const counter = Buffer.from(info.iv, "base64");
    return new Uint8Array(await subtle.decrypt({ name: "AES-CTR", counter, length: 64 }, key, data));
}

let pictures = 0;

/**
 * Draws a picture that is sent, a PNG. Each is another one.
 *
 * @returns {Uint8Array}
 */
export function picture() {
    const [width, height] = [240, 160];
    const shade = 40 * pictures++;
    const rows = Buffer.alloc((width * 3 + 1) * height);
    for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
            const at = y * (width * 3 + 1) + 1 + x * 3; // each row begins with its filter, 0
            rows.set([x, (x * y + shade) & 255, 255 - y], at);
        }
    }
    const header = Buffer.alloc(13);
    header.writeUInt32BE(width, 0);
    header.writeUInt32BE(height, 4);
    header.set([8, 2, 0, 0, 0], 8); // 8 bits a channel, RGB
    const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
    return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))]);
}

function chunk(name, data) {
    const body = Buffer.concat([Buffer.from(name), data]);
    const frame = Buffer.alloc(8);
    frame.writeUInt32BE(data.length, 0);
    frame.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
}
