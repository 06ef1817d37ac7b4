// What every queue and topic engine needs from the process around it.
#ifndef POSTKEEPER_SERVICE_ENGINE_CONTEXT_H_
#define POSTKEEPER_SERVICE_ENGINE_CONTEXT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "metrics/metrics.h"
#include "service/validate.h"
#include "zkstore/batch_cache.h"
#include "zkstore/catalog.h"
#include "zkstore/client.h"
#include "zkstore/environment.h"
#include "zkstore/layout.h"
#include "zkstore/leader_clock.h"
#include "zkstore/log_appender.h"
#include "zkstore/mutation.h"
#include "zkstore/owner.h"

namespace postkeeper {

// How long a call waits for its log to have an owner: over a take-over.
inline constexpr Duration kOwnerPatience = std::chrono::seconds(15);

struct EngineLimits {
  RequestLimits requests;
  std::int64_t stored_bytes_max = std::int64_t{1} << 30;  // of all logs together
  std::int64_t live_batches_max = 100'000;                // of one log
  std::size_t request_ids_max = 100'000;                  // remembered, of one log
  Duration request_id_window = std::chrono::minutes(10);
  std::int64_t consumers_max = 10'000;  // streams and waiting calls of one log
};

// One per process; outlives all engines. The references are thread-safe objects.
struct EngineContext {
  Environment& environment;
  zk::Client& client;
  Catalog& catalog;
  const Layout layout;
  const ProcessId process;
  const std::string address;  // as other replicas reach it
  BatchCache& cache;
  Metrics& metrics;
  const AppendOptions append;
  const EngineLimits limits;

  // Whether this replica is the one that should take a log of nobody, or of a replica that is gone. Thread-safe; set
  // before the first engine. Empty: it is.
  std::function<bool(const Uid& log, const OwnerView& free)> is_first_choice = {};

  LeaderClock leader_clock{environment, client, layout, process};
  std::atomic<std::uint32_t> last_generation{0};  // of producers' chains: never used twice by a process
  std::atomic<std::uint64_t> last_ownership{0};   // numbers the objects that own logs
  std::atomic<std::int64_t> stored_bytes{0};      // of all logs that this replica owns, about
  std::atomic<std::int64_t> foreign_bytes{0};     // of all others that it appends to, about
  std::atomic<std::int64_t> corruptions{0};       // damaged or missing batches met

  // False when ZooKeeper has not answered for so long that another replica may own our logs: nothing is handed out then
  // (self-fence: two thirds of the session's timeout, counted from the sending of the last answered request).
  bool MayDispatch() const {
    if (IsMutated(Mutation::kDispatchUnfenced)) return true;
    const zk::SessionEvent session = client.session();
    return session.state == zk::SessionState::kConnected &&
           environment.Now() - client.last_answered_sent_at() < session.timeout * 2 / 3;
  }
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_ENGINE_CONTEXT_H_
