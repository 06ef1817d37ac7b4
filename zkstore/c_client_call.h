// One request on its way through the ZooKeeper C client: how it is handed over, and how its reply is read.
// Only for c_client.cc.
#ifndef POSTKEEPER_ZKSTORE_C_CLIENT_CALL_H_
#define POSTKEEPER_ZKSTORE_C_CLIENT_CALL_H_

#include <zookeeper/zookeeper.h>

#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "zkstore/client.h"

namespace postkeeper::zk {

struct CClientCall;

class CallOwner {
 public:
  // The C client is done with `call`; `rc` is its result code, `response` the reply.
  virtual void OnReply(CClientCall& call, int rc, Response response) = 0;

 protected:
  ~CallOwner() = default;
};

// Stays where it is in memory from SendCall until OnReply, or until the handle is closed: the C client writes the
// results of a multi into it.
struct CClientCall {
  CallOwner* owner = nullptr;
  Request request;          // without its bodies once it is sent
  Client::Completion done;  // empty once it has run
  std::size_t bytes = 0;
  std::size_t watch_bytes = 0;
  std::uint64_t watch_id = 0;  // 0: no watch
  bool is_sent = false;
  Instant sent_at{};
  Instant deadline{};
  std::list<CClientCall>::iterator self;

  std::vector<zoo_op_result_t> results;
  std::vector<std::string> created_paths;
  std::vector<::Stat> stats;
};

// Hands the request to the C client, which calls OnReply unless this returns something else than ZOK. Events of the
// request's watch come to `watcher`, with the watch's id as context.
int SendCall(zhandle_t* handle, CClientCall& call, watcher_fn watcher);

// What the result code of a whole request means. Codes that the C client makes up for a lost connection are unknown
// ones.
Code CodeOf(int rc);
// True if a server sent this code.
bool IsAnswer(int rc);

// The request as a whole, and not one operation of a multi.
inline constexpr std::size_t kWhole = static_cast<std::size_t>(-1);

// Of the C client's event types.
WatchType WatchTypeOf(int type);

// The operation of a multi (or kWhole for another request) whose path ZooKeeper would not take. The server checks
// paths too; but in a multi the C client of ZooKeeper 3.8 frees memory that it does not own when it meets such a path,
// so that none may get there.
std::optional<std::size_t> FirstInvalidPath(const Request& request);

// The answer to a request that was refused because of its operation `failed`, or as a whole.
Response Refusal(const Request& request, Code code, std::size_t failed = kWhole);

}  // namespace postkeeper::zk

#endif  // POSTKEEPER_ZKSTORE_C_CLIENT_CALL_H_
