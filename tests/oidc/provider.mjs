// A strict OpenID provider on a free port of loopback, whose only person approves everything.
// Run by tests/oidc/running.py: `node provider.mjs CALLBACK_URL JWK_SET`, the latter of the client
// that signs with a private key. Ends with its standard input.

import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const [callbackUrl, keys] = process.argv.slice(2);
const PERSON = 'demo';
const INTERACTION = '/interaction';

const configuration = {
  clients: [
    {
      client_id: 'strict-client',
      client_secret: 'strict-secret',
      redirect_uris: [callbackUrl],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
    },
    {
      client_id: 'signing-client',
      token_endpoint_auth_method: 'private_key_jwt',
      jwks: JSON.parse(keys),
      redirect_uris: [callbackUrl],
      grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
      response_types: ['code'],
    },
    {
      client_id: 'hmac-client',
      client_secret: 'a-secret-that-is-long-enough-for-hs256',
      token_endpoint_auth_method: 'client_secret_jwt',
      redirect_uris: [],
      grant_types: ['client_credentials'],
      response_types: [],
    },
    {
      client_id: 'device-client',
      client_secret: 'strict-secret',
      redirect_uris: [],
      grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
      response_types: [],
    },
  ],
  cookies: { keys: ['only-for-tests'] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
  },
  findAccount: (_context, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  interactions: { url: (_context, interaction) => `${INTERACTION}/${interaction.uid}` },
  issueRefreshToken: () => true,
  pkce: { required: () => true, methods: ['S256'] },
  rotateRefreshToken: true,
  scopes: ['openid', 'offline_access'],
  ttl: {
    AccessToken: 3600,
    AuthorizationCode: 60,
    Grant: 86400,
    IdToken: 3600,
    Interaction: 600,
    RefreshToken: 86400,
    Session: 86400,
  },
};

// Says yes for the person: logs in, then grants the scopes that were asked for.
async function approve(provider, request, response) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  let result = { login: { accountId: PERSON } };
  if (prompt.name === 'consent') {
    const known = grantId && (await provider.Grant.find(grantId));
    const grant =
      known || new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope((prompt.details.missingOIDCScope ?? []).join(' '));
    result = { consent: { grantId: await grant.save() } };
  }
  await provider.interactionFinished(request, response, result, {
    mergeWithLastSubmission: true,
  });
}

function fail(response, error) {
  response.statusCode = 500;
  response.end(String(error));
}

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  const answer = provider.callback();
  server.on('request', (request, response) => {
    if (request.url.startsWith(`${INTERACTION}/`)) {
      approve(provider, request, response).catch((error) => fail(response, error));
    } else {
      answer(request, response);
    }
  });
  console.log(`listening on ${issuer}`);
});

process.stdin.on('end', () => process.exit());
process.stdin.resume();
