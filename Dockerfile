# The product for production: `manage.py web` and `manage.py worker` are commands of this one image.
# compose.yaml runs them; docs/operations.md says how.

FROM python:3.13-slim@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285 AS build
RUN python -m venv /venv
COPY requirements.txt .
# Wheels only: nothing is compiled, and every file has the hash that was locked.
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
# A page of the product.
COPY docs/receivers.md docs/receivers.uk.md docs/
# The keys are needed to load the settings and are used for nothing.
RUN SECRET_KEY=build FIELD_ENCRYPTION_KEY=YnVpbGQtYnVpbGQtYnVpbGQtYnVpbGQtYnVpbGQtMzI= \
    python manage.py collectstatic --noinput --verbosity=0
USER webhooks
VOLUME /data
EXPOSE 8000
CMD ["python", "manage.py", "web", "--bind=0.0.0.0:8000"]
