// EnqueueStream and PublishStream.
#ifndef POSTKEEPER_SERVICE_APPEND_STREAM_H_
#define POSTKEEPER_SERVICE_APPEND_STREAM_H_

#include "service/desk.h"
#include "service/names.h"

namespace grpc {
class ByteBuffer;
class CallbackServerContext;
template <class Request, class Response>
class ServerBidiReactor;
}  // namespace grpc

namespace postkeeper {

// The reactor of one stream that appends to logs of this kind; owned by gRPC.
grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* MakeAppendStream(Desk& desk,
                                                                              grpc::CallbackServerContext& context,
                                                                              Name::Kind log_kind);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_APPEND_STREAM_H_
