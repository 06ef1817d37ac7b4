#!/usr/bin/env bash
# Makes the stubs and the three programs in build/examples/java, from Debian's packages alone: default-jdk-headless,
# libgrpc-java, libperfmark-java, libgoogle-gson-java, libgeronimo-annotation-1.3-spec-java, protobuf-compiler,
# protobuf-compiler-grpc-java-plugin. The class path is in the file `path`, for `java @build/examples/java/path`.
#
# With Maven or Gradle the same are io.grpc:grpc-netty-shaded, grpc-protobuf and grpc-stub. Debian's netty-all.jar is
# empty, so its parts are named; without perfmark every call would end in DEADLINE_EXCEEDED.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly work="$PWD/build/examples/java" jars=/usr/share/java
readonly parts=(grpc-{api,context,core,netty,protobuf,protobuf-lite,stub} perfmark-api protobuf guava gson
  geronimo-annotation-1.3-spec netty-{buffer,codec,codec-http,codec-http2,codec-socks,common,handler,handler-proxy}
  netty-{resolver,transport})
path="$work/classes"
for part in "${parts[@]}"; do
  path+=":$jars/$part.jar"
done

rm -rf "$work"
mkdir -p "$work/stubs" "$work/classes"
protoc -Iprotos --java_out="$work/stubs" --grpc-java_out="$work/stubs" \
  --plugin=protoc-gen-grpc-java=/usr/bin/grpc_java_plugin postkeeper/v1/message.proto
find "$work/stubs" -name '*.java' -print0 | xargs -0 javac -nowarn -proc:none -cp "$path" -d "$work/classes"
javac -Xlint:all,-classfile,-path -Werror -proc:none -cp "$path" -d "$work/classes" examples/java/*.java
cp protos/postkeeper/v1/service_config.json "$work/classes/"
echo "-cp $path" >"$work/path"
