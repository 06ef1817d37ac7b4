#include "tests/support/zookeeper_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <thread>

namespace postkeeper {
namespace {

constexpr const char* kJar = "/usr/share/java/zookeeper.jar";
constexpr auto kStartTimeout = std::chrono::seconds(180);
constexpr auto kPollInterval = std::chrono::milliseconds(20);

[[noreturn]] void Fail(const std::string& text) {
  std::cerr << "ZookeeperProcess: " << text << std::endl;
  std::abort();
}

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

std::vector<int> FreePorts(int count) {
  std::vector<int> sockets, ports;
  while (static_cast<int>(ports.size()) < count) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof(address);
    if (fd < 0 || bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      Fail("no free port on 127.0.0.1");
    }
    sockets.push_back(fd);
    ports.push_back(ntohs(address.sin_port));
  }
  for (int fd : sockets) close(fd);
  return ports;
}

std::string MakeTemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "postkeeper-zookeeper-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) Fail("cannot make the folder " + pattern);
  return pattern;
}

ZookeeperProcess::ZookeeperProcess(std::string folder, int port) : folder_(std::move(folder)), port_(port) {
  if (!std::filesystem::exists(kJar)) {
    Fail("no ZooKeeper here. Type: apt-get install libzookeeper-java default-jre-headless");
  }
}

ZookeeperProcess::~ZookeeperProcess() { End(SIGKILL); }

void ZookeeperProcess::Launch(const std::string& main_class, const std::string& configuration,
                              std::vector<std::string> java_flags) {
  if (pid_ != 0) return;
  std::ofstream(folder_ + "/zoo.cfg") << configuration;
  // A killed process leaves its writes with the kernel, so tests need no fsync.
  std::vector<std::string> command = {"java",
                                      "-Xmx256m",
                                      "-XX:+UseSerialGC",
                                      "-XX:TieredStopAtLevel=1",
                                      "-Dzookeeper.forceSync=no",
                                      "-Dzookeeper.preAllocSize=1024"};
  command.insert(command.end(), java_flags.begin(), java_flags.end());
  command.insert(command.end(), {"-cp", kJar, main_class, folder_ + "/zoo.cfg"});
  std::vector<char*> arguments;
  for (std::string& part : command) arguments.push_back(part.data());
  arguments.push_back(nullptr);
  const std::string output = folder_ + "/output";
  const pid_t parent = getpid();

  pid_ = fork();
  if (pid_ < 0) Fail("cannot fork");
  if (pid_ != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  int fd = open(output.c_str(), O_CREAT | O_APPEND | O_WRONLY, 0600);
  dup2(fd, STDOUT_FILENO);
  dup2(fd, STDERR_FILENO);
  execvp(arguments[0], arguments.data());
  _exit(127);
}

void ZookeeperProcess::AwaitService() {
  const auto give_up_at = std::chrono::steady_clock::now() + kStartTimeout;
  while (Mode().empty()) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      Fail("java ended at the start (is default-jre-headless installed?). It said:\n" + Output());
    }
    if (std::chrono::steady_clock::now() > give_up_at) Fail("not up in time. It said:\n" + Output());
    std::this_thread::sleep_for(kPollInterval);
  }
}

void ZookeeperProcess::End(int signal) {
  if (pid_ == 0) return;
  kill(pid_, signal);
  waitpid(pid_, nullptr, 0);
  pid_ = 0;
}

void ZookeeperProcess::Pause() {
  if (pid_ == 0) return;
  kill(pid_, SIGSTOP);
  waitpid(pid_, nullptr, WUNTRACED);  // its threads do not stop at once
}

void ZookeeperProcess::Resume() {
  if (pid_ != 0) kill(pid_, SIGCONT);
}

std::string ZookeeperProcess::Report() const {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  timeval patience{.tv_sec = 1, .tv_usec = 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  sockaddr_in address = Loopback(port_);
  std::string answer;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
      send(fd, "srvr", 4, MSG_NOSIGNAL) == 4) {
    std::array<char, 1024> part;
    ssize_t count;
    while ((count = recv(fd, part.data(), part.size(), 0)) > 0) {
      answer.append(part.data(), static_cast<std::size_t>(count));
    }
  }
  close(fd);
  return answer.find("Mode: ") == answer.npos ? "" : answer;
}

std::string ZookeeperProcess::Mode() const {
  static constexpr std::string_view kLabel = "Mode: ";
  const std::string report = Report();
  if (report.empty()) return "";
  const std::size_t start = report.find(kLabel) + kLabel.size();
  return report.substr(start, report.find('\n', start) - start);
}

std::string ZookeeperProcess::Output() const {
  std::ifstream file(folder_ + "/output");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace postkeeper
