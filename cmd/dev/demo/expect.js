// What the demo expects, and what it says when that does not come.

/** How long anything may take, also on a computer that does much else: seconds. */
const patience = 180;

/** Says what was expected and never seen. */
export class Missing extends Error {}

/**
 * Returns what promise gives, or throws a Missing if that takes too long.
 *
 * @template T
 * @param {string} what the expectation in the present tense: "bob sees …"
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
export async function within(what, promise) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Missing(`expected, but not seen within ${patience} s: ${what}`)), patience * 1000);
    });
    try {
        return await Promise.race([promise, late]);
    } finally {
        clearTimeout(timer);
    }
}

/**
 * What somebody has seen so far, and who waits for more.
 *
 * @template T
 */
export class Seen {
    #list = [];
    #waiting = new Set();

    /** @param {T} item */
    add(item) {
        this.#list.push(item);
        this.#waiting.forEach((waiter) => waiter(item));
    }

    /**
     * Waits for an item, seen or still to come.
     *
     * @param {string} what for the message when it does not come
     * @param {(item: T) => boolean} matches
     * @returns {Promise<T>}
     */
    find(what, matches) {
        const found = this.#list.find(matches);
        if (found) return Promise.resolve(found);
        let waiter;
        const come = new Promise((resolve) => {
            waiter = (item) => matches(item) && resolve(item);
            this.#waiting.add(waiter);
        });
        return within(what, come).finally(() => this.#waiting.delete(waiter));
    }
}
