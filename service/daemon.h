// postkeeperd at work.
#ifndef POSTKEEPER_SERVICE_DAEMON_H_
#define POSTKEEPER_SERVICE_DAEMON_H_

#include <string_view>

#include "service/config.h"

namespace postkeeper {

// Runs until SIGTERM or SIGINT; returns the process's exit code: 0, or 1 after one line on stderr that says what is
// wrong. To be called on the main thread, before any other thread is started; the process must end when it returns.
//
// The order of starting: the data directory, the metrics' port, the gRPC port, ZooKeeper, the store. So whoever asks
// can see at once that the process lives (health "liveness"), while calls are answered with ZOOKEEPER_UNAVAILABLE until
// the store is open. The order of stopping: health says NOT_SERVING, calls are refused, streams asked to leave, what is
// on its way finishes, the logs are given back, the port, the session and ZooKeeper are closed; all within
// --drain-timeout. A second signal ends the process at once (service/stop_signals.h).
int RunDaemon(const Config& config, std::string_view version);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_DAEMON_H_
