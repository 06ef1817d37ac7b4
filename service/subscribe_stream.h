// Subscribe.
#ifndef POSTKEEPER_SERVICE_SUBSCRIBE_STREAM_H_
#define POSTKEEPER_SERVICE_SUBSCRIBE_STREAM_H_

#include "service/desk.h"

namespace grpc {
class ByteBuffer;
class CallbackServerContext;
template <class Response>
class ServerWriteReactor;
}  // namespace grpc

namespace postkeeper {

// The reactor of one Subscribe stream; owned by gRPC.
grpc::ServerWriteReactor<grpc::ByteBuffer>* MakeSubscribeStream(Desk& desk, grpc::CallbackServerContext& context,
                                                                const grpc::ByteBuffer& request);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_SUBSCRIBE_STREAM_H_
