// What the demo expects, and what it says when that does not come.

/** Says what was expected and never seen. */
export class Missing extends Error {}

/**
 * Returns what promise gives, or throws a Missing after so many seconds.
 *
 * @template T
 * @param {number} seconds
 * @param {string} what the expectation in the present tense: "bob sees …"
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
export async function within(seconds, what, promise) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Missing(`expected, but not seen within ${seconds} s: ${what}`)), seconds * 1000);
    });
    try {
        return await Promise.race([promise, late]);
    } finally {
        clearTimeout(timer);
    }
}
