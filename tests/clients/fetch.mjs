// Node's own fetch: `node fetch.mjs URL`.

const answer = await fetch(process.argv[2]);
console.log(JSON.stringify({ status: answer.status, body: await answer.text() }));
