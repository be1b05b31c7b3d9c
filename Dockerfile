# syntax=docker/dockerfile:1
# Two images: `service` (decision service, door, publisher, projector, topics, demo) and `flink` (job manager,
# task manager, jobs). Both run as an unprivileged user; compilers stay behind in the build stages.

FROM python:3.12-slim-bookworm AS python
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN groupadd --gid 10001 cordon \
 && useradd --uid 10001 --gid cordon --no-create-home --home-dir /var/lib/cordon cordon \
 && install -d -o cordon -g cordon /var/lib/cordon
WORKDIR /opt/cordon

FROM maven:3-eclipse-temurin-17 AS jars
COPY stream/java /build
RUN mvn -q -B -f /build/pom.xml -Dout=/jars/out \
 && mkdir /jars/flink && mv /jars/out/*.jar /jars/flink/ && rm /jars/flink/*-tests.jar

FROM python AS service-build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
COPY requirements/service.txt requirements/service.txt
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --require-hashes -r requirements/service.txt
# The compiled scorer chooses its instructions when it runs: built here, it serves on every processor.
COPY features features
COPY models models
COPY api api
RUN /opt/venv/bin/python -m models.kernel.build && /opt/venv/bin/python -m models.kernel.vectors \
    && /opt/venv/bin/python -m api.audit.chain && /opt/venv/bin/python -m api.intake.compiled \
    && /opt/venv/bin/python -m api.syncing
RUN cc -std=c99 -O3 -fPIC -shared -o cordon-store.so features/compiled/state.c features/compiled/module.c

FROM valkey/valkey:9 AS store
COPY --from=service-build /opt/cordon/cordon-store.so /usr/local/lib/cordon-store.so

FROM python AS flink-build
# Flink's own libraries and pemja are built from source distributions: a compiler and Java's headers.
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential openjdk-17-jdk-headless \
 && rm -rf /var/lib/apt/lists/*
ENV JAVA_HOME=/usr/lib/jvm/default-java
RUN ln -s "$(dirname "$(dirname "$(readlink -f /usr/bin/javac)")")" /usr/lib/jvm/default-java
COPY requirements/flink.txt requirements/flink.txt
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --require-hashes -r requirements/flink.txt

FROM python AS service
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=service-build /opt/venv /opt/venv
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY features features
COPY --from=service-build /opt/cordon/models models
COPY --from=service-build /opt/cordon/api api
COPY stream stream
COPY cordon cordon
COPY deploy/rules deploy/rules
COPY deploy/wait-for-model deploy/wait-for-model
ARG COMMIT=unknown
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/cordon CORDON_COMMIT=$COMMIT \
    CORDON_SERVICE__HOST=0.0.0.0 \
    CORDON_JOURNAL__DIRECTORY=/var/lib/cordon/journal \
    CORDON_AUDIT__ANCHORS=/var/lib/cordon/anchors \
    CORDON_AUDIT__KEYS=/var/lib/cordon/keys \
    CORDON_VAULT__DIRECTORY=/var/lib/cordon/vault \
    CORDON_WEBHOOKS__FILE=/var/lib/cordon/webhooks.sqlite \
    CORDON_STORE_URL=sqlite:////var/lib/cordon/store.sqlite \
    CORDON_TIER__WARM=/var/lib/cordon/warm
RUN printf '#!/bin/sh\nexec python -m cordon.main "$@"\n' >/opt/venv/bin/cordon && chmod 755 /opt/venv/bin/cordon
USER cordon
VOLUME /var/lib/cordon
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"]
CMD ["python", "-m", "api.serve"]

FROM python AS flink
RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless procps \
 && rm -rf /var/lib/apt/lists/* \
 && ln -s "$(dirname "$(dirname "$(readlink -f /usr/bin/java)")")" /usr/lib/jvm/default-java
COPY --from=flink-build /opt/venv /opt/venv
COPY --from=jars /jars/flink .jars/flink
COPY pyproject.toml README.md LICENSE ./
COPY features features
COPY stream stream
COPY deploy/flink /opt/cordon/flink/conf
ENV JAVA_HOME=/usr/lib/jvm/default-java \
    PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/cordon \
    FLINK_HOME=/opt/venv/lib/python3.12/site-packages/pyflink \
    FLINK_CONF_DIR=/opt/cordon/flink/conf \
    FLINK_LOG_DIR=/var/lib/cordon/flink/log \
    FLINK_PID_DIR=/tmp \
    CORDON_FLINK__JARS=/opt/cordon/.jars/flink
RUN install -d -o cordon -g cordon /var/lib/cordon/flink/log /var/lib/cordon/flink/checkpoints
USER cordon
VOLUME /var/lib/cordon
EXPOSE 8081 6123
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=6 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(os.environ.get('CORDON_FLINK__REST', 'http://127.0.0.1:8081') + '/overview', timeout=2)"]
CMD ["bash", "-c", "exec \"$FLINK_HOME/bin/jobmanager.sh\" start-foreground"]
