// Messages into a queue or a topic, packed: many to a frame, many frames on their way.
#ifndef POSTKEEPER_BENCH_APPEND_LOAD_H_
#define POSTKEEPER_BENCH_APPEND_LOAD_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "bench/load.h"

namespace postkeeper::bench {

struct AppendShape {
  int streams = 2;  // each with a connection of its own
  int frame_messages = 1000;
  int unanswered_frames_max = 32;  // of each stream; the server takes 64
  int body_bytes = 100;
};

// True while the appending streams shall pause: whoever takes the messages out is behind.
using IsBehind = std::function<bool(std::int64_t appended)>;

// EnqueueStream. Counts messages whose frame was answered, that is which are durable.
std::unique_ptr<Load> MakeEnqueueLoad(const std::string& address, const std::string& queue, const AppendShape& shape,
                                      IsBehind is_behind = {});
// PublishStream, the same.
std::unique_ptr<Load> MakePublishLoad(const std::string& address, const std::string& topic, const AppendShape& shape,
                                      IsBehind is_behind = {});

}  // namespace postkeeper::bench

#endif  // POSTKEEPER_BENCH_APPEND_LOAD_H_
