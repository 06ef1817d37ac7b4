#include "service/embedded_zookeeper.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <optional>
#include <random>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/strings/str_split.h"
#include "service/child_process.h"
#include "service/embedded_zookeeper_files.h"
#include "service/logging.h"
#include "service/snapshot_purger.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

// How long a predecessor that has been killed may take to go: it may be in the middle of a large write.
constexpr Duration kPredecessorTimeout = seconds(15);
constexpr Duration kProbeInterval = milliseconds(50);
constexpr Duration kPauseMax = seconds(10);
constexpr std::size_t kAnswerBytesMax = 64 << 10;
constexpr int kLowestPort = 20'000;

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return address;
}

// The port that could be bound; 0 = any was asked for. Nothing if it is taken.
std::optional<int> TryPort(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return std::nullopt;
  const int yes = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address = Loopback(port);
  socklen_t size = sizeof address;
  // Without listen, two sockets with SO_REUSEADDR may be bound to one port.
  const bool is_free = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && listen(fd, 1) == 0 &&
                       getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  close(fd);
  if (!is_free) return std::nullopt;
  return ntohs(address.sin_port);
}

// A free port outside the range from which the kernel takes ports for outgoing connections. One from inside could be
// taken by any connection while ZooKeeper is restarted, and a client that tries to connect to it then may even get
// connected to itself.
int FreePort() {
  int first_ephemeral = 0;
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> first_ephemeral;
  std::random_device random;
  for (int i = 0; i < 100 && first_ephemeral > kLowestPort; ++i) {
    const int port = std::uniform_int_distribution<int>(kLowestPort, first_ephemeral - 1)(random);
    if (TryPort(port)) return port;
  }
  return TryPort(0).value_or(0);
}

// What ZooKeeper answers to a command of four letters; empty if it does not.
std::string Ask(int port, std::string_view command) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return "";
  const timeval limit{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  const sockaddr_in address = Loopback(port);
  std::string answer;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
      send(fd, command.data(), command.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(command.size())) {
    std::array<char, 4096> buffer;
    ssize_t got;
    while (answer.size() < kAnswerBytesMax && (got = recv(fd, buffer.data(), buffer.size(), 0)) > 0) {
      answer.append(buffer.data(), static_cast<std::size_t>(got));
    }
  }
  close(fd);
  return answer;
}

// True if the ZooKeeper that serves on `port` keeps its data in `directory`. It may be somebody else's, which took the
// port before ours could.
bool Serves(int port, const std::string& directory) {
  const std::filesystem::path expected = std::filesystem::path(directory) / "data" / "version-2";
  const std::string answer = Ask(port, "conf");
  for (const absl::string_view line : absl::StrSplit(answer, '\n')) {
    const std::string_view text = StdView(line);
    if (text.starts_with("dataDir=")) return std::filesystem::path(text.substr(8)).lexically_normal() == expected;
  }
  return false;
}

std::string LastLine(const std::string& path) {
  std::ifstream in(path);
  std::string line, last;
  while (std::getline(in, line)) {
    if (!line.empty()) last = line;
  }
  return Printable(last, 300);
}

}  // namespace

class EmbeddedZooKeeper::Impl {
 public:
  explicit Impl(Options options) : options_(std::move(options)), stop_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~Impl() {
    Stop(seconds(5));
    if (stop_fd_ >= 0) close(stop_fd_);
  }

  absl::Status Start() {
    if (absl::Status status = Prepare(); !status.ok()) return status;
    std::future<absl::Status> started = started_.get_future();
    supervisor_ = std::thread([this] { Supervise(); });
    absl::Status status = started.get();
    if (status.ok()) purger_ = std::thread([this] { KeepPurging(); });
    return status;
  }

  void Stop(Duration patience) {
    {
      std::lock_guard lock(mu_);
      patience_ = patience;
      is_stopping_ = true;
    }
    changed_.notify_all();
    const std::uint64_t one = 1;
    if (stop_fd_ >= 0 && write(stop_fd_, &one, sizeof one) < 0 && errno != EAGAIN) LogError("cannot wake a thread");
    if (supervisor_.joinable()) supervisor_.join();
    if (purger_.joinable()) purger_.join();
  }

  int port() const {
    std::lock_guard lock(mu_);
    return port_;
  }
  pid_t pid() const {
    std::lock_guard lock(mu_);
    return pid_;
  }
  int restarts() const {
    std::lock_guard lock(mu_);
    return restarts_;
  }

 private:
  enum class Wake { kStop, kChildEnded, kTime };

  absl::Status Prepare() {
    absl::StatusOr<std::string> java = FindJava(options_);
    if (!java.ok()) return java.status();
    java_ = *java;
    if (stop_fd_ < 0) return absl::InternalError(Cat("cannot make an event: ", std::strerror(errno)));
    if (mkdir(options_.directory.c_str(), 0700) != 0 && errno != EEXIST) {
      return absl::FailedPreconditionError(Cat("cannot make ", options_.directory, ": ", std::strerror(errno)));
    }
    std::error_code error;
    options_.directory = std::filesystem::canonical(options_.directory, error).string();
    if (error) return absl::FailedPreconditionError(Cat("cannot use ", options_.directory, ": ", error.message()));
    if (const std::string shown = Printable(options_.directory, PATH_MAX); shown != options_.directory) {
      return absl::FailedPreconditionError(Cat("Java cannot use a directory whose name is not plain UTF-8: ", shown,
                                               ". Choose another: --data-dir DIR"));
    }
    return absl::OkStatus();
  }

  // --- on the supervisor's thread, which is the one that forks ---

  void Supervise() {
    std::optional<ChildProcess> child;
    const absl::Status status = StartFirst(&child);
    started_.set_value(status);
    if (!status.ok()) return;
    int ends_in_a_row = 0;
    Clock::time_point up_since = Clock::now();
    for (;;) {
      const Wake wake = WaitFor(*child, std::chrono::hours(1));
      if (wake == Wake::kStop) return StopChild(*child);
      if (wake == Wake::kTime) continue;
      const std::string end = child->WaitFor(Duration{}).value_or("unknown");
      child.reset();
      SetRunning(-1);
      if (Clock::now() - up_since >= kStableAfter) ends_in_a_row = 0;
      LogError("the embedded ZooKeeper ended by itself", {{"how", end}, {"log", LogPath()}});
      if (const absl::Status restarted = Restart(&child, &ends_in_a_row, end); !restarted.ok()) {
        if (!IsStopping() && options_.on_gone) options_.on_gone(restarted);
        return;
      }
      up_since = Clock::now();
    }
  }

  absl::Status StartFirst(std::optional<ChildProcess>* child) {
    absl::Status status;
    for (int attempt = 0; attempt < kPortAttemptsMax; ++attempt) {
      const int port = options_.port != 0 ? options_.port : FreePort();
      if (options_.port != 0 && !TryPort(port)) {
        return absl::FailedPreconditionError(
            Cat("port ", port, " on 127.0.0.1 is taken. Choose another: --embedded-zookeeper-port 0 takes a free one"));
      }
      {
        std::lock_guard lock(mu_);
        port_ = port;
      }
      status = StartChild(child);
      // Somebody else may have taken the port in between; that is the only failure that another try mends.
      const bool is_race = !status.ok() && options_.port == 0 && port != 0 && !TryPort(port) && !IsStopping();
      if (!is_race) return status;
    }
    return status;
  }

  absl::Status Restart(std::optional<ChildProcess>* child, int* ends_in_a_row, std::string end) {
    Duration pause = options_.restart_pause_min;
    while (++*ends_in_a_row <= kRestartsMax) {
      if (WaitForStop(pause)) return absl::CancelledError("stopping");
      pause = std::min(pause * 2, kPauseMax);
      {
        std::lock_guard lock(mu_);
        ++restarts_;
      }
      const absl::Status status = StartChild(child);
      if (status.ok()) {
        LogInfo("the embedded ZooKeeper runs again", {{"pid", (*child)->pid()}, {"restart", *ends_in_a_row}});
        return status;
      }
      if (IsStopping()) return status;
      end = StdView(status.message());
      LogError("the embedded ZooKeeper did not start again", {{"why", end}});
    }
    return absl::UnavailableError(Cat("the embedded ZooKeeper ended ", *ends_in_a_row,
                                      " times in a row and is given up; the last time: ", end, Hint(end),
                                      ". Its log: ", LogPath()));
  }

  // Starts one and waits until it answers.
  absl::Status StartChild(std::optional<ChildProcess>* child) {
    if (absl::Status status = WriteZooKeeperFiles(options_, port()); !status.ok()) return status;
    absl::StatusOr<int> lock = LockDirectory();
    if (!lock.ok()) return lock.status();
    const int output = open(OutputPath().c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    ChildOptions options;
    options.arguments = ZooKeeperCommand(options_, java_);
    options.environment = ZooKeeperEnvironment();
    options.working_directory = options_.directory;
    options.output_fd = output;
    options.kept_fd = *lock;
    absl::StatusOr<ChildProcess> started = ChildProcess::Start(options);
    if (started.ok()) {
      const std::string text = Cat(started->pid(), "\n");
      if (ftruncate(*lock, 0) != 0 || pwrite(*lock, text.data(), text.size(), 0) < 0) {
        LogWarning("cannot note the process id of the embedded ZooKeeper", {{"why", std::strerror(errno)}});
      }
    }
    // From here on the child alone holds the lock.
    close(*lock);
    if (output >= 0) close(output);
    if (!started.ok()) return started.status();
    if (absl::Status status = WaitUntilReady(*started); !status.ok()) {
      if (IsStopping()) StopChild(*started);
      return status;
    }
    SetRunning(started->pid());
    *child = *std::move(started);
    return absl::OkStatus();
  }

  // Takes the lock that a running ZooKeeper holds on its data, waiting for one that is on its way out.
  absl::StatusOr<int> LockDirectory() {
    const std::string path = options_.directory + "/lock";
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return absl::FailedPreconditionError(Cat("cannot open ", path, ": ", std::strerror(errno)));
    const Clock::time_point deadline = Clock::now() + kPredecessorTimeout;
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
      const int error = errno;
      if (error == EWOULDBLOCK && Clock::now() < deadline && !WaitForStop(kProbeInterval)) continue;
      close(fd);
      if (error != EWOULDBLOCK) return absl::InternalError(Cat("cannot lock ", path, ": ", std::strerror(error)));
      return absl::FailedPreconditionError(Cat("another ZooKeeper (process ", LastLine(path), ") still runs on ",
                                               options_.directory, ". Stop it, or choose another --data-dir"));
    }
    return fd;
  }

  absl::Status WaitUntilReady(ChildProcess& child) {
    const Clock::time_point deadline = Clock::now() + options_.start_timeout;
    Clock::time_point next_line = Clock::now() + seconds(10);
    while (Clock::now() < deadline) {
      switch (WaitFor(child, kProbeInterval)) {
        case Wake::kStop:
          return absl::CancelledError("stopped while the embedded ZooKeeper was starting");
        case Wake::kChildEnded: {
          const std::string end = child.WaitFor(Duration{}).value_or("unknown");
          const std::string said = LastLine(OutputPath());
          return absl::UnavailableError(Cat("the embedded ZooKeeper ended while starting (", end, ")",
                                            said.empty() ? "" : ": ", said, Hint(end), ". Its log: ", LogPath()));
        }
        case Wake::kTime:
          break;
      }
      if (Serves(port(), options_.directory)) return absl::OkStatus();
      if (Clock::now() >= next_line) {
        LogInfo("waiting for the embedded ZooKeeper, which is loading its data", {{"log", LogPath()}});
        next_line += seconds(10);
      }
    }
    return absl::UnavailableError(Cat("the embedded ZooKeeper did not answer within ", Readable(options_.start_timeout),
                                      ". Its log: ", LogPath()));
  }

  void StopChild(ChildProcess& child) {
    Duration patience;
    {
      std::lock_guard lock(mu_);
      patience = patience_;
    }
    child.Signal(SIGTERM);
    if (!child.WaitFor(patience)) {
      LogWarning("the embedded ZooKeeper did not stop and is killed", {{"pid", child.pid()}});
      child.Signal(SIGKILL);
      child.WaitFor(kPredecessorTimeout);
    }
    SetRunning(-1);
  }

  Wake WaitFor(const ChildProcess& child, Duration timeout) { return Poll(child.fd(), timeout); }
  // True if it is time to stop.
  bool WaitForStop(Duration timeout) { return Poll(-1, timeout) == Wake::kStop; }

  Wake Poll(int child_fd, Duration timeout) {
    std::array<pollfd, 2> fds = {pollfd{stop_fd_, POLLIN, 0}, pollfd{child_fd, POLLIN, 0}};
    const auto ms = std::chrono::duration_cast<milliseconds>(timeout).count();
    if (poll(fds.data(), fds.size(), static_cast<int>(ms)) <= 0) return Wake::kTime;
    if (fds[0].revents != 0) return Wake::kStop;
    return fds[1].revents != 0 ? Wake::kChildEnded : Wake::kTime;
  }

  void SetRunning(pid_t pid) {
    std::lock_guard lock(mu_);
    pid_ = pid;
  }
  bool IsStopping() const {
    std::lock_guard lock(mu_);
    return is_stopping_;
  }

  static std::string_view Hint(std::string_view end) {
    // Java's own code for -XX:+ExitOnOutOfMemoryError.
    return end == "exit code 3" ? " because its memory was used up: raise --zookeeper-heap" : "";
  }
  std::string LogPath() const { return options_.directory + "/zookeeper.log.0"; }
  std::string OutputPath() const { return options_.directory + "/zookeeper.out"; }

  // --- on the purger's thread ---

  void KeepPurging() {
    SnapshotPurger purger(options_.directory + "/data/version-2");
    std::unique_lock lock(mu_);
    while (!changed_.wait_for(lock, options_.purge_interval, [this] { return is_stopping_; })) {
      // While it starts, ZooKeeper reads the very files.
      if (pid_ < 0) continue;
      lock.unlock();
      PurgeOnce(purger);
      lock.lock();
    }
  }

  static void PurgeOnce(SnapshotPurger& purger) {
    const absl::StatusOr<SnapshotPurger::Removed> removed = purger.Purge();
    if (!removed.ok()) {
      LogError("cannot remove old files of the embedded ZooKeeper", {{"why", StdView(removed.status().message())}});
    } else if (removed->bytes > 0) {
      LogDebug("removed old files of the embedded ZooKeeper",
               {{"snapshots", removed->snapshots}, {"logs", removed->logs}, {"bytes", removed->bytes}});
    }
  }

  // Constant after Start began.
  Options options_;
  std::string java_;
  const int stop_fd_;  // an event that says: stop
  std::promise<absl::Status> started_;

  mutable std::mutex mu_;
  std::condition_variable changed_;  // is_stopping_
  // Guarded by mu_.
  bool is_stopping_ = false;
  Duration patience_{};
  int port_ = 0;
  pid_t pid_ = -1;
  int restarts_ = 0;

  std::thread supervisor_;
  std::thread purger_;
};

EmbeddedZooKeeper::EmbeddedZooKeeper(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EmbeddedZooKeeper::~EmbeddedZooKeeper() = default;

absl::StatusOr<std::unique_ptr<EmbeddedZooKeeper>> EmbeddedZooKeeper::Start(Options options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  if (absl::Status status = impl->Start(); !status.ok()) return status;
  return std::unique_ptr<EmbeddedZooKeeper>(new EmbeddedZooKeeper(std::move(impl)));
}

void EmbeddedZooKeeper::Stop(Duration patience) { impl_->Stop(patience); }
int EmbeddedZooKeeper::port() const { return impl_->port(); }
std::string EmbeddedZooKeeper::hosts() const { return Cat("127.0.0.1:", port()); }
pid_t EmbeddedZooKeeper::pid() const { return impl_->pid(); }
int EmbeddedZooKeeper::restarts() const { return impl_->restarts(); }

}  // namespace postkeeper
