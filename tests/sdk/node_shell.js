// Calls by the vendor's libraries for Node: one JSON object a line in, one out. Arguments: which library, endpoint, key.
//
// The generated packages of the vendor call `callApi` of @alicloud/openapi-client as `openapi` does here.
'use strict';

const readline = require('readline');

const [kind, endpoint, id, secret] = process.argv.slice(2);

function openapi() {
  const { default: Client, Config, Params, OpenApiRequest } = require('@alicloud/openapi-client');
  const { RuntimeOptions } = require('@alicloud/tea-util');
  const { default: Util } = require('@alicloud/openapi-util');
  const client = new Client(new Config({ accessKeyId: id, accessKeySecret: secret, endpoint, protocol: 'HTTP' }));
  return async (op, params) => {
    const call = new Params({
      action: op, version: '2018-03-13', protocol: 'HTTP', pathname: '/', method: 'POST', authType: 'AK', style: 'RPC',
      reqBodyType: 'formData', bodyType: 'json',
    });
    const request = new OpenApiRequest({ query: Util.query(params) });
    return (await client.callApi(call, request, new RuntimeOptions({}))).body;
  };
}

function pop() {
  const { RPCClient } = require('@alicloud/pop-core');
  const client = new RPCClient({
    accessKeyId: id, accessKeySecret: secret, endpoint: `http://${endpoint}`, apiVersion: '2018-03-13',
  });
  return (op, params) => client.request(op, params, { method: 'POST', formatParams: false });
}

function refusal(e) {
  const data = e.data || {};
  const code = data.Code || e.code;
  const status = e.statusCode || data.statusCode || (e.entry && e.entry.response && e.entry.response.statusCode);
  // The code alone tells what the server answered; some failures have none.
  return { code: String(code || ''), status: status || 0, message: String(e.message || e) };
}

const call = kind === 'openapi' ? openapi() : pop();
// Numbers above 2^53, such as those of accounts, are objects of this library for pop-core.
const write = kind === 'pop' ? require('json-bigint').stringify : JSON.stringify;
const lines = readline.createInterface({ input: process.stdin });
console.log(JSON.stringify({ ready: kind }));
let last = Promise.resolve();
lines.on('line', (line) => {
  const { op, params } = JSON.parse(line);
  last = last.then(() => call(op, params)).then(
    (ok) => console.log(write({ ok })),
    (e) => console.log(JSON.stringify({ refused: refusal(e) })),
  );
});
