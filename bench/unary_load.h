// Unary Enqueue calls, so many at a time.
#ifndef POSTKEEPER_BENCH_UNARY_LOAD_H_
#define POSTKEEPER_BENCH_UNARY_LOAD_H_

#include <memory>
#include <string>

#include "bench/load.h"

namespace postkeeper::bench {

// Each call carries one message; a call that is answered is followed by the next. With in_flight 1 the latencies are
// what one caller sees.
//
// The request's bytes are made once and the answer's are not parsed, so that the client costs little. The same load
// measures postkeeperd and the echo (echo_server.h): they differ in the address only.
std::unique_ptr<Load> MakeUnaryLoad(const std::string& address, const std::string& queue, int in_flight,
                                    int body_bytes);

}  // namespace postkeeper::bench

#endif  // POSTKEEPER_BENCH_UNARY_LOAD_H_
