#!/usr/bin/env bash
# Makes the stubs and the three programs in build/examples/go/bin, from Debian's packages alone: golang-go,
# golang-google-grpc-dev, protoc-gen-go-1-3, protobuf-compiler.
#
# With Go modules instead: a module named "postkeeper", these folders below examples/, and the stubs of protoc-gen-go
# and protoc-gen-go-grpc in v1/. Debian's grpc-go 1.33 wants those of the older generator that makes both. That one
# doesn't know the word `optional`, which changes nothing for the two fields that have it: their types are messages.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly work="$PWD/build/examples/go"
rm -rf "$work/src" "$work/protos"
mkdir -p "$work/src/postkeeper/examples" "$work/protos/postkeeper/v1"
sed 's/^  optional google[.]/  google./' protos/postkeeper/v1/message.proto >"$work/protos/postkeeper/v1/message.proto"
# Where that generator's time types are.
readonly types=github.com/golang/protobuf/ptypes
mapping="Mgoogle/protobuf/duration.proto=$types/duration,Mgoogle/protobuf/timestamp.proto=$types/timestamp"
protoc -I"$work/protos" --go_out="plugins=grpc,$mapping:$work/src" postkeeper/v1/message.proto
cp -r examples/go/*/ "$work/src/postkeeper/examples/"
cp protos/postkeeper/v1/service_config.json "$work/src/postkeeper/examples/connection/"

export GO111MODULE=off GOPATH="$work:/usr/share/gocode" GOCACHE="$work/cache"
go vet postkeeper/examples/...
for program in producer worker subscriber; do
  go build -o "$work/bin/$program" "postkeeper/examples/$program"
done
