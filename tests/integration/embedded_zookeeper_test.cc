// The embedded ZooKeeper with a real Java, in the ways it is used and the ways it can die.
#include "service/embedded_zookeeper.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <asio/co_spawn.hpp>
#include <asio/use_future.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "service/data_directory.h"
#include "zkstore/c_client.h"
#include "zkstore/real_environment.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::StartsWith;
namespace fs = std::filesystem;

// Looks again and again until `is_so`, for at most 20 s: another process is what is waited for.
bool Eventually(const std::function<bool()>& is_so) {
  const auto deadline = std::chrono::steady_clock::now() + seconds(20);
  while (std::chrono::steady_clock::now() < deadline) {
    if (is_so()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return is_so();
}

bool IsAlive(pid_t pid) {
  std::ifstream stat(Cat("/proc/", pid, "/stat"));
  std::string id, name, state;
  stat >> id >> name >> state;
  return !state.empty() && state != "Z" && state != "X";
}

// A client of a ZooKeeper, for tests that wait for each answer.
class BlockingClient {
 public:
  explicit BlockingClient(const std::string& hosts) : client_(environment_, {.hosts = hosts}) {
    std::promise<void> connected;
    auto is_told = std::make_shared<bool>(false);
    client_.ObserveSession([&connected, is_told](const zk::SessionEvent& event) {
      if (event.state == zk::SessionState::kConnected && !std::exchange(*is_told, true)) connected.set_value();
    });
    is_connected_ = connected.get_future().wait_for(seconds(20)) == std::future_status::ready;
  }
  bool is_connected() const { return is_connected_; }
  Duration session_timeout() const { return client_.session().timeout; }
  zk::Code Create(const std::string& path, const std::string& data) {
    return asio::co_spawn(environment_.executor(), client_.Create(path, data), asio::use_future).get().code;
  }
  zk::Code Delete(const std::string& path) {
    return asio::co_spawn(environment_.executor(), client_.Delete(path, zk::kAnyVersion), asio::use_future).get().code;
  }
  std::string Get(const std::string& path) {
    return asio::co_spawn(environment_.executor(), client_.Get(path), asio::use_future).get().data;
  }

 private:
  RealEnvironment environment_{1};
  zk::CClient client_;
  bool is_connected_ = false;
};

class EmbeddedZooKeeperTest : public ::testing::Test {
 protected:
  EmbeddedZooKeeperTest() {
    std::string pattern = (fs::temp_directory_path() / "postkeeper-test-XXXXXX").string();
    folder_ = fs::canonical(mkdtemp(pattern.data())).string();
    options_.directory = folder_ + "/zookeeper";
    options_.heap_bytes = std::int64_t{256} << 20;
  }
  ~EmbeddedZooKeeperTest() override { fs::remove_all(folder_); }

  std::unique_ptr<EmbeddedZooKeeper> Start() {
    auto started = EmbeddedZooKeeper::Start(options_);
    EXPECT_TRUE(started.ok()) << started.status();
    return started.ok() ? *std::move(started) : nullptr;
  }
  std::string FailureToStart() { return std::string(EmbeddedZooKeeper::Start(options_).status().message()); }
  // The bytes that the data really take on the disk.
  std::int64_t DiskBytes() const {
    std::int64_t bytes = 0;
    for (const auto& entry : fs::directory_iterator(options_.directory + "/data/version-2")) {
      struct stat info;
      if (stat(entry.path().c_str(), &info) == 0) bytes += std::int64_t{info.st_blocks} * 512;
    }
    return bytes;
  }

  std::string folder_;
  EmbeddedZooKeeper::Options options_;
};

// It starts, serves, grants the sessions that postkeeperd asks for, and keeps its folder to its owner.
TEST_F(EmbeddedZooKeeperTest, StartsAndServes) {
  const auto zookeeper = Start();
  ASSERT_NE(zookeeper, nullptr);
  EXPECT_EQ(zookeeper->hosts(), Cat("127.0.0.1:", zookeeper->port()));
  BlockingClient client(zookeeper->hosts());
  ASSERT_TRUE(client.is_connected());
  EXPECT_EQ(client.session_timeout(), seconds(10));
  EXPECT_EQ(client.Create("/x", "data"), zk::Code::kOk);
  EXPECT_EQ(client.Get("/x"), "data");
  EXPECT_EQ(fs::status(options_.directory).permissions() & fs::perms::all, fs::perms::owner_all);
  EXPECT_TRUE(fs::exists(options_.directory + "/zookeeper.log.0"));
}

// Stopped and started again it has its data, under whatever name the directory goes; what it logs stays one series of
// files.
TEST_F(EmbeddedZooKeeperTest, KeepsItsDataOverARestart) {
  options_.directory = folder_ + "/a %d\\u0041 \"é\" = 任务";
  for (int round = 0; round < 3; ++round) {
    const auto zookeeper = Start();
    ASSERT_NE(zookeeper, nullptr);
    BlockingClient client(zookeeper->hosts());
    ASSERT_TRUE(client.is_connected());
    EXPECT_EQ(client.Create("/x", "data"), round == 0 ? zk::Code::kOk : zk::Code::kNodeExists);
    EXPECT_EQ(client.Get("/x"), "data");
    const pid_t pid = zookeeper->pid();
    // In the second round it is killed while it is being stopped.
    zookeeper->Stop(round == 1 ? Duration{} : Duration(seconds(5)));
    EXPECT_FALSE(IsAlive(pid));
    EXPECT_EQ(zookeeper->pid(), -1);
  }
  EXPECT_FALSE(fs::exists(options_.directory + "/zookeeper.log.0.1"));
}

// When it dies by itself it is started again on the same port, and clients go on with their data.
TEST_F(EmbeddedZooKeeperTest, IsStartedAgainWhenItDies) {
  const auto zookeeper = Start();
  ASSERT_NE(zookeeper, nullptr);
  BlockingClient client(zookeeper->hosts());
  ASSERT_TRUE(client.is_connected());
  ASSERT_EQ(client.Create("/x", "data"), zk::Code::kOk);
  const int port = zookeeper->port();
  const pid_t first = zookeeper->pid();
  kill(first, SIGKILL);
  ASSERT_TRUE(Eventually([&] { return zookeeper->pid() != -1 && zookeeper->pid() != first; }));
  EXPECT_EQ(zookeeper->port(), port);
  EXPECT_EQ(zookeeper->restarts(), 1);
  EXPECT_TRUE(Eventually([&] { return client.Get("/x") == "data"; }));
}

// One that cannot come up again is given up after a bounded number of tries, and that is told once.
TEST_F(EmbeddedZooKeeperTest, IsGivenUpWhenItCannotComeBack) {
  options_.restart_pause_min = milliseconds(20);
  std::promise<absl::Status> gone;
  options_.on_gone = [&gone](const absl::Status& why) { gone.set_value(why); };
  const auto zookeeper = Start();
  ASSERT_NE(zookeeper, nullptr);
  // Java cannot be started in a directory that is not there.
  fs::rename(options_.directory, folder_ + "/away");
  kill(zookeeper->pid(), SIGKILL);
  auto future = gone.get_future();
  ASSERT_EQ(future.wait_for(seconds(60)), std::future_status::ready);
  EXPECT_THAT(std::string(future.get().message()),
              StartsWith("the embedded ZooKeeper ended 6 times in a row and is given up; the last time: "));
  EXPECT_EQ(zookeeper->restarts(), EmbeddedZooKeeper::kRestartsMax);
}

// Java or ZooKeeper missing: one line with what to install.
TEST_F(EmbeddedZooKeeperTest, MissingPackages) {
  options_.java = folder_ + "/no/java";
  EXPECT_EQ(FailureToStart(), Cat("the embedded ZooKeeper needs Java (", folder_,
                                  "/no/java), which is not installed. Install it: apt-get install default-jre-headless "
                                  "libzookeeper-java. Or use "
                                  "an ensemble: --zookeeper HOST:PORT"));
  options_.java.clear();
  options_.jars = folder_;
  EXPECT_EQ(FailureToStart(), Cat("the embedded ZooKeeper needs ", folder_,
                                  "/zookeeper.jar, which is not installed. Install it: apt-get install "
                                  "default-jre-headless libzookeeper-java. Or "
                                  "use an ensemble: --zookeeper HOST:PORT"));
}

// A Java that cannot do what it is asked is quoted.
TEST_F(EmbeddedZooKeeperTest, JavaThatFailsIsQuoted) {
  options_.java = folder_ + "/java";
  std::ofstream(options_.java) << "#!/bin/sh\necho 'Could not reserve enough space'\nexit 1\n";
  chmod(options_.java.c_str(), 0755);
  EXPECT_EQ(FailureToStart(), Cat("the embedded ZooKeeper ended while starting (exit code 1): Could not reserve enough "
                                  "space. Its log: ",
                                  options_.directory, "/zookeeper.log.0"));
}

// A directory that Java could not find again is refused at once.
TEST_F(EmbeddedZooKeeperTest, DirectoryThatIsNotText) {
  options_.directory = folder_ + "/\xff";
  EXPECT_EQ(FailureToStart(), Cat("Java cannot use a directory whose name is not plain UTF-8: ", folder_,
                                  "/\\xff. Choose another: --data-dir DIR"));
}

// A port that was asked for and is taken is named.
TEST_F(EmbeddedZooKeeperTest, TakenPort) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  options_.port = ntohs(address.sin_port);
  EXPECT_EQ(FailureToStart(), Cat("port ", options_.port,
                                  " on 127.0.0.1 is taken. Choose another: --embedded-zookeeper-port 0 takes a free "
                                  "one"));
  close(fd);
}

// Two that would use one directory: the second one waits for the first to go, and never runs beside it.
TEST_F(EmbeddedZooKeeperTest, NeverTwoOnTheSameData) {
  auto first = Start();
  ASSERT_NE(first, nullptr);
  const pid_t pid = first->pid();
  auto second = std::async(std::launch::async, [&] { return EmbeddedZooKeeper::Start(options_); });
  EXPECT_EQ(second.wait_for(seconds(1)), std::future_status::timeout);
  EXPECT_TRUE(IsAlive(pid));
  first.reset();
  auto started = second.get();
  ASSERT_TRUE(started.ok()) << started.status();
  EXPECT_NE((*started)->pid(), pid);
}

// While many times the log limit is written, the disk holds a few times the limit, and the data survive a kill.
TEST_F(EmbeddedZooKeeperTest, DiskStaysBounded) {
  options_.snapshot_log_bytes = 4 << 20;
  options_.purge_interval = milliseconds(50);
  const std::string batch(100'000, 'x');
  std::int64_t most = 0;
  {
    const auto zookeeper = Start();
    ASSERT_NE(zookeeper, nullptr);
    BlockingClient client(zookeeper->hosts());
    ASSERT_TRUE(client.is_connected());
    ASSERT_EQ(client.Create("/kept", batch), zk::Code::kOk);
    for (int i = 0; i < 1000; ++i) {
      ASSERT_EQ(client.Create(Cat("/", i), batch), zk::Code::kOk);
      if (i >= 10) {
        ASSERT_EQ(client.Delete(Cat("/", i - 10)), zk::Code::kOk);
      }
      if (i % 20 == 0) most = std::max(most, DiskBytes());
    }
    kill(zookeeper->pid(), SIGKILL);
  }
  // 100 MB were written. The disk holds four intervals of at most 4 MiB each, four snapshots of 1 MB, and what is
  // written between two purges.
  EXPECT_GT(most, 8 << 20);
  EXPECT_LT(most, 40 << 20);
  const auto zookeeper = Start();
  ASSERT_NE(zookeeper, nullptr);
  BlockingClient client(zookeeper->hosts());
  ASSERT_TRUE(client.is_connected());
  EXPECT_EQ(client.Get("/kept"), batch);
  EXPECT_EQ(client.Get("/999"), batch);
  EXPECT_EQ(client.Get("/989"), "");
}

// A process of its own that holds a data directory and runs the embedded ZooKeeper in it.
class Host {
 public:
  explicit Host(const std::string& data_directory) {
    int input[2], output[2];
    if (pipe2(input, O_CLOEXEC) != 0 || pipe2(output, O_CLOEXEC) != 0) std::abort();
    pid_ = fork();
    if (pid_ == 0) {
      dup2(input[0], STDIN_FILENO);
      dup2(output[1], STDOUT_FILENO);
      dup2(output[1], STDERR_FILENO);
      execl(EMBEDDED_ZOOKEEPER_HOST, "host", data_directory.c_str(), "--heap-mib", "256", nullptr);
      _exit(127);
    }
    close(input[0]);
    close(output[1]);
    input_fd_ = input[1];
    output_ = fdopen(output[0], "r");
    char line[1024];
    if (std::fgets(line, sizeof line, output_) != nullptr) said_ = line;
    std::sscanf(said_.c_str(), "%*d %d", &zookeeper_);
  }
  ~Host() {
    close(input_fd_);
    Wait();
    std::fclose(output_);  // only now: writing to a closed pipe would end the host
  }
  void Kill() {
    kill(pid_, SIGKILL);
    Wait();
  }
  int Wait() {
    int status = 0;
    if (pid_ > 0) waitpid(std::exchange(pid_, -1), &status, 0);
    return status;
  }
  pid_t pid() const { return pid_; }
  pid_t zookeeper() const { return zookeeper_; }
  const std::string& said() const { return said_; }

 private:
  pid_t pid_ = -1;
  pid_t zookeeper_ = -1;
  int input_fd_ = -1;
  FILE* output_ = nullptr;
  std::string said_;
};

// When the parent is killed with SIGKILL its ZooKeeper is gone at once, and the next one starts on the same data.
TEST_F(EmbeddedZooKeeperTest, DiesWithItsParent) {
  Host first(folder_ + "/data");
  ASSERT_GT(first.zookeeper(), 0) << first.said();
  ASSERT_TRUE(IsAlive(first.zookeeper()));
  first.Kill();
  Host second(folder_ + "/data");
  EXPECT_FALSE(IsAlive(first.zookeeper()));
  ASSERT_GT(second.zookeeper(), 0) << second.said();
  EXPECT_TRUE(IsAlive(second.zookeeper()));
}

// A parent that ends in an orderly way leaves nothing running.
TEST_F(EmbeddedZooKeeperTest, StopsWithItsParent) {
  pid_t zookeeper;
  {
    Host host(folder_ + "/data");
    zookeeper = host.zookeeper();
    ASSERT_TRUE(IsAlive(zookeeper)) << host.said();
  }
  EXPECT_FALSE(IsAlive(zookeeper));
}

// A second process on the same data directory ends with exit code 1 and one line that names the first.
TEST_F(EmbeddedZooKeeperTest, SecondProcessOnTheSameDirectory) {
  Host first(folder_ + "/data");
  ASSERT_GT(first.zookeeper(), 0) << first.said();
  Host second(folder_ + "/data");
  EXPECT_EQ(second.said(),
            Cat("the data directory ", folder_, "/data is in use by process ", first.pid(), ". Stop that one (kill ",
                first.pid(), "), or give this one a directory of its own: --data-dir DIR\n"));
  EXPECT_EQ(WEXITSTATUS(second.Wait()), 1);
}

}  // namespace
}  // namespace postkeeper
