// Log lines of the ZooKeeper C client, sorted by the client they are about.
#ifndef POSTKEEPER_ZKSTORE_C_CLIENT_LOG_H_
#define POSTKEEPER_ZKSTORE_C_CLIENT_LOG_H_

#include <zookeeper/zookeeper.h>

#include <functional>
#include <string_view>

#include "zkstore/c_client.h"

namespace postkeeper::zk {

// The C client calls back with a line of text and nothing to say whose line it is. So each of our clients gets a
// function of its own, out of CClient::kClientsMax that exist. More clients than that at one time are a bug: aborts.
//
// Threads: `on_line` is called on any thread, several at a time, until the object is destroyed; that must not happen
// before the handle that uses callback() is closed.
class CClientLog {
 public:
  using OnLine = std::function<void(LogLevel level, std::string_view text)>;

  explicit CClientLog(OnLine on_line);
  ~CClientLog();
  CClientLog(const CClientLog&) = delete;
  CClientLog& operator=(const CClientLog&) = delete;

  log_callback_fn callback() const;
  void Receive(std::string_view line) const;

 private:
  const OnLine on_line_;
  int slot_ = 0;
};

}  // namespace postkeeper::zk

#endif  // POSTKEEPER_ZKSTORE_C_CLIENT_LOG_H_
