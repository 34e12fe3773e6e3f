// Node's own fetch: `node fetch.mjs URL [KEY]`.

const [url, key] = process.argv.slice(2);
const headers = key ? { authorization: `Bearer ${key}` } : {};
const answer = await fetch(url, { headers });
console.log(JSON.stringify({ status: answer.status, body: await answer.text() }));
