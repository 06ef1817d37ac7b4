#include "tests/support/zookeeper_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <thread>
#include <vector>

namespace postkeeper {
namespace {

constexpr const char* kJar = "/usr/share/java/zookeeper.jar";
constexpr auto kStartTimeout = std::chrono::seconds(60);
constexpr auto kPollInterval = std::chrono::milliseconds(20);

[[noreturn]] void Fail(const std::string& text) {
  std::cerr << "ZookeeperServer: " << text << std::endl;
  std::abort();
}

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int FreePort() {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  if (fd < 0 || bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    Fail("no free port on 127.0.0.1");
  }
  close(fd);
  return ntohs(address.sin_port);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

ZookeeperServer::ZookeeperServer() : ZookeeperServer(Options()) {}

ZookeeperServer::ZookeeperServer(Options options) : options_(options) {
  if (!std::filesystem::exists(kJar))
    Fail("no ZooKeeper here. Type: apt-get install libzookeeper-java default-jre-headless");
  std::string pattern = (std::filesystem::temp_directory_path() / "postkeeper-zookeeper-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) Fail("cannot make the folder " + pattern);
  folder_ = pattern;
}

ZookeeperServer::~ZookeeperServer() {
  Kill();
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

void ZookeeperServer::WriteConfiguration() {
  std::ofstream file(folder_ + "/zoo.cfg");
  file << "tickTime=" << options_.tick.count() << "\n"
       << "dataDir=" << folder_ << "/data\n"
       << "clientPort=" << port_ << "\n"
       << "clientPortAddress=127.0.0.1\n"
       << "maxSessionTimeout=" << options_.tick.count() * 200 << "\n"
       << "maxClientCnxns=0\n"
       << "admin.enableServer=false\n"
       << "4lw.commands.whitelist=srvr\n";
}

void ZookeeperServer::Start() {
  if (pid_ != 0) return;
  if (port_ == 0) port_ = FreePort();
  WriteConfiguration();
  // A killed process leaves its writes with the kernel, so tests need no fsync.
  std::vector<std::string> command = {"java",
                                      "-Xmx256m",
                                      "-XX:+UseSerialGC",
                                      "-XX:TieredStopAtLevel=1",
                                      "-Dzookeeper.forceSync=no",
                                      "-Dzookeeper.preAllocSize=1024",
                                      "-Djute.maxbuffer=" + std::to_string(options_.request_bytes_max),
                                      "-cp",
                                      kJar,
                                      "org.apache.zookeeper.server.ZooKeeperServerMain",
                                      folder_ + "/zoo.cfg"};
  std::vector<char*> arguments;
  for (std::string& part : command) arguments.push_back(part.data());
  arguments.push_back(nullptr);
  const std::string output = folder_ + "/output";
  const pid_t parent = getpid();

  pid_ = fork();
  if (pid_ < 0) Fail("cannot fork");
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    int fd = open(output.c_str(), O_CREAT | O_APPEND | O_WRONLY, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }

  const auto give_up_at = std::chrono::steady_clock::now() + kStartTimeout;
  while (!Serves()) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      Fail("java ended at the start (is default-jre-headless installed?). It said:\n" + ReadFile(output));
    }
    if (std::chrono::steady_clock::now() > give_up_at) Fail("not up in time. It said:\n" + ReadFile(output));
    std::this_thread::sleep_for(kPollInterval);
  }
}

bool ZookeeperServer::Serves() const {
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
  return answer.find("Mode: ") != answer.npos;
}

void ZookeeperServer::End(int signal) {
  if (pid_ == 0) return;
  kill(pid_, signal);
  waitpid(pid_, nullptr, 0);
  pid_ = 0;
}

void ZookeeperServer::Stop() { End(SIGTERM); }

void ZookeeperServer::Kill() { End(SIGKILL); }

void ZookeeperServer::Pause() {
  if (pid_ == 0) return;
  kill(pid_, SIGSTOP);
  waitpid(pid_, nullptr, WUNTRACED);  // its threads do not stop at once
}

void ZookeeperServer::Resume() {
  if (pid_ != 0) kill(pid_, SIGCONT);
}

}  // namespace postkeeper
