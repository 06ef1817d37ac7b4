#include "tests/support/tcp_relay.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <iostream>

namespace postkeeper {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// How many bytes were moved; -1: the connection is at its end.
ssize_t Move(int from, int to, bool passes) {
  std::array<char, 65536> bytes;
  ssize_t count = recv(from, bytes.data(), bytes.size(), 0);
  if (count <= 0) return -1;
  for (ssize_t sent = 0; passes && sent < count;) {
    ssize_t part = send(to, bytes.data() + sent, static_cast<std::size_t>(count - sent), MSG_NOSIGNAL);
    if (part <= 0) return -1;
    sent += part;
  }
  return count;
}

}  // namespace

struct TcpRelay::Pair {
  int client;
  int server;
};

TcpRelay::TcpRelay(int server_port) : server_port_(server_port) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 64) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0 || pipe(wake_) != 0) {
    std::cerr << "TcpRelay: no free port on 127.0.0.1" << std::endl;
    std::abort();
  }
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Run(); });
}

TcpRelay::~TcpRelay() {
  Cut();  // closes all connections; the thread must still be there to do it
  is_ending_ = true;
  Wake();
  thread_.join();
  for (int fd : {listener_, wake_[0], wake_[1]}) close(fd);
}

void TcpRelay::Cut() { SetMode(Mode::kCut); }

void TcpRelay::LoseAnswers() { SetMode(Mode::kLosingAnswers); }

void TcpRelay::Restore() { SetMode(Mode::kPassing); }

void TcpRelay::SetMode(Mode mode) {
  mode_ = mode;
  Wake();
  while (mode_in_force_ != mode) std::this_thread::yield();
}

void TcpRelay::Wake() {
  char byte = 0;
  if (write(wake_[1], &byte, 1) != 1) std::abort();
}

void TcpRelay::Accept() {
  int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(server_port_);
  if (mode_in_force_ == Mode::kCut || connect(server, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    close(client);
    close(server);
    return;
  }
  for (int fd : {client, server}) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  pairs_.push_back({client, server});
}

void TcpRelay::Run() {
  while (true) {
    std::vector<pollfd> waits = {{listener_, POLLIN, 0}, {wake_[0], POLLIN, 0}};
    for (const Pair& pair : pairs_) {
      waits.push_back({pair.client, POLLIN, 0});
      waits.push_back({pair.server, POLLIN, 0});
    }
    poll(waits.data(), waits.size(), -1);
    if (waits[1].revents != 0) {
      char byte;
      if (read(wake_[0], &byte, 1) != 1) std::abort();
    }
    const Mode mode = mode_;
    std::vector<Pair> living;
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
      const Pair& pair = pairs_[i];
      bool lives = mode != Mode::kCut;
      if (lives && waits[2 + 2 * i].revents != 0) {
        const ssize_t moved = Move(pair.client, pair.server, true);
        lives = moved >= 0;
        if (lives) bytes_to_server_ += moved;
      }
      if (lives && waits[3 + 2 * i].revents != 0) {
        lives = Move(pair.server, pair.client, mode == Mode::kPassing) >= 0;
      }
      if (lives) {
        living.push_back(pair);
      } else {
        close(pair.client);
        close(pair.server);
      }
    }
    pairs_ = std::move(living);
    mode_in_force_ = mode;
    if (is_ending_) return;
    if (waits[0].revents != 0) Accept();
  }
}

}  // namespace postkeeper
