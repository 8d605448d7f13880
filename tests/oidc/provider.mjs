// A strict OpenID provider on a free port of loopback, whose only person approves everything.
// Run by tests/oidc/running.py: `node provider.mjs CALLBACK_URL`. Ends with its standard input.

import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const [callbackUrl] = process.argv.slice(2);
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
  ],
  cookies: { keys: ['only-for-tests'] },
  features: {
    devInteractions: { enabled: false },
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
