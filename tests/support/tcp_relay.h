// A network that can be cut.
#ifndef POSTKEEPER_TESTS_SUPPORT_TCP_RELAY_H_
#define POSTKEEPER_TESTS_SUPPORT_TCP_RELAY_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace postkeeper {

// Accepts connections on a loopback port of its own and passes bytes between them and a server on another loopback
// port, until it is told not to.
//
// Threads: one of its own moves the bytes; the calls below belong to one other.
class TcpRelay {
 public:
  explicit TcpRelay(int server_port);
  ~TcpRelay();
  TcpRelay(const TcpRelay&) = delete;
  TcpRelay& operator=(const TcpRelay&) = delete;

  int port() const { return port_; }
  std::string hosts() const { return "127.0.0.1:" + std::to_string(port_); }

  // Ends all connections; new ones end as soon as they are made. Returns when that is done.
  void Cut();
  // From now on the server's answers are thrown away; what clients send still gets through.
  void LoseAnswers();
  // New connections work again; those that are there stay as they are.
  void Restore();

  // What clients have sent and is in the server's socket by now, read by it or not.
  std::int64_t bytes_to_server() const { return bytes_to_server_; }

 private:
  enum class Mode { kPassing, kCut, kLosingAnswers };
  struct Pair;

  void Run();
  void Accept();
  // Returns when the thread works in this mode.
  void SetMode(Mode mode);
  void Wake();

  const int server_port_;
  int listener_ = -1;
  int wake_[2] = {-1, -1};
  int port_ = 0;
  std::atomic<Mode> mode_{Mode::kPassing};
  std::atomic<Mode> mode_in_force_{Mode::kPassing};
  std::atomic<bool> is_ending_{false};
  std::atomic<std::int64_t> bytes_to_server_{0};
  std::vector<Pair> pairs_;  // touched by the thread only
  std::thread thread_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_TCP_RELAY_H_
