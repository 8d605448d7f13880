# The production image; it runs both `manage.py web` and `manage.py worker`.
# compose.yaml starts them; docs/operations.md explains how.

FROM python:3.13-slim@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285 AS build
RUN python -m venv /venv
COPY requirements.txt .
# Only wheels: nothing is compiled, and the hash of every file is checked.
RUN /venv/bin/pip install --no-cache-dir --only-binary=:all: --require-hashes -r requirements.txt

FROM python:3.13-slim@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DATA_DIR=/data \
    STATIC_IS_COLLECTED=1
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin webhooks \
    && install --directory --owner=webhooks --mode=0700 /data
COPY --from=build /venv /venv
WORKDIR /app
COPY manage.py ./
COPY config config
COPY webhooks webhooks
COPY templates templates
COPY static static
# The product shows this guide as a help page.
COPY docs/receivers.md docs/receivers.uk.md docs/
# The settings need keys to load; these are not used for anything.
RUN SECRET_KEY=build FIELD_ENCRYPTION_KEY=YnVpbGQtYnVpbGQtYnVpbGQtYnVpbGQtYnVpbGQtMzI= \
    python manage.py collectstatic --noinput --verbosity=0
USER webhooks
VOLUME /data
EXPOSE 8000
CMD ["python", "manage.py", "web", "--bind=0.0.0.0:8000"]
