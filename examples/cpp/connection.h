// The way to postkeeperd, as every example takes it: a channel with the service's manners.
#ifndef POSTKEEPER_EXAMPLES_CPP_CONNECTION_H_
#define POSTKEEPER_EXAMPLES_CPP_CONNECTION_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

// A channel that retries what may be retried, balances over replicas, and notices when the other side is gone. Null,
// and a line on standard error that begins with `program`, if nobody answers within 10 s; calls would wait in silence
// until their deadline.
std::shared_ptr<grpc::Channel> Connect(const std::string& program);

// Whether a call or stream that ended with this may go well the next time: the way broke, or the service is full. For
// calls that are safe to repeat only, as those with a request_id are.
bool IsWorthRepeating(const grpc::Status& status, const grpc::ClientContext& context);

// One line about a call that failed.
std::string Explain(const grpc::Status& status);

#endif  // POSTKEEPER_EXAMPLES_CPP_CONNECTION_H_
