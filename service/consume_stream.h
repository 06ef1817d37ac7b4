// Consume.
#ifndef POSTKEEPER_SERVICE_CONSUME_STREAM_H_
#define POSTKEEPER_SERVICE_CONSUME_STREAM_H_

#include "service/desk.h"

namespace grpc {
class ByteBuffer;
class CallbackServerContext;
template <class Request, class Response>
class ServerBidiReactor;
}  // namespace grpc

namespace postkeeper {

// The reactor of one Consume stream; owned by gRPC.
grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* MakeConsumeStream(Desk& desk,
                                                                               grpc::CallbackServerContext& context);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_CONSUME_STREAM_H_
