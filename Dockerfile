# postkeeper as an image. ./dev image builds both targets and runs them.
#
#   docker build -t postkeeper .                      postkeeperd and postkeeper, for --zookeeper HOST:PORT; no Java
#   docker build -t postkeeper:dev --target dev .     with Java too, for a ZooKeeper of its own in /var/lib/postkeeper
#
# Both run as user 65532 and write nowhere but /var/lib/postkeeper (dev only), so the root may be read-only:
#
#   docker run --read-only -v postkeeper:/var/lib/postkeeper -p 127.0.0.1:7411:7411 postkeeper:dev
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
WORKDIR /src
COPY cmake/debian-packages.txt cmake/
COPY scripts/packages.sh scripts/
RUN scripts/packages.sh ensure build
COPY . .
ARG CCACHE_DIR=/root/.cache/ccache
RUN cmake --preset release --log-level=WARNING \
 && bash -c 'set -e; source scripts/common.sh; build_targets release postkeeperd postkeeper' \
 && install -D -s -t /out/usr/bin build/release/postkeeperd build/release/postkeeper \
 && install -D -m 0644 -t /out/usr/share/doc/postkeeper LICENSE NOTICE

FROM ${BASE} AS libraries
COPY cmake/debian-packages.txt /tmp/packages/cmake/
COPY scripts/packages.sh /tmp/packages/scripts/
RUN /tmp/packages/scripts/packages.sh ensure run \
 && rm -rf /tmp/packages /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/* \
 && groupadd --gid 65532 postkeeper \
 && useradd --key UID_MAX=65532 --uid 65532 --gid 65532 --no-create-home --home-dir /var/lib/postkeeper --shell /usr/sbin/nologin postkeeper
COPY --from=build /out /
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="postkeeper" \
      org.opencontainers.image.description="durable queues and publish/subscribe over gRPC, kept in ZooKeeper" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# In a container loopback reaches nobody. Nothing checks who calls: publish the ports only where you trust the callers.
ENV POSTKEEPER_LISTEN=0.0.0.0:7411 \
    POSTKEEPER_METRICS_LISTEN=0.0.0.0:7412 \
    POSTKEEPER_DATA_DIR=/var/lib/postkeeper
EXPOSE 7411 7412
# Kubernetes doesn't look at it: the chart has gRPC probes. With another port: POSTKEEPER_ADDRESS=127.0.0.1:PORT
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["postkeeper", "health", "--timeout", "4s"]
ENTRYPOINT ["postkeeperd"]

FROM libraries AS dev
# Java's package makes links in a folder that the slim base doesn't have.
COPY cmake/debian-packages.txt /tmp/packages/cmake/
COPY scripts/packages.sh /tmp/packages/scripts/
RUN mkdir -p /usr/share/man/man1 \
 && /tmp/packages/scripts/packages.sh ensure embedded \
 && rm -rf /tmp/packages /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/* \
 && install -d -o 65532 -g 65532 -m 0700 /var/lib/postkeeper
VOLUME /var/lib/postkeeper
USER 65532:65532

# The last one is what is built when no target is named.
FROM libraries AS run
USER 65532:65532
