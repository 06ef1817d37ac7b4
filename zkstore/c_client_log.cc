#include "zkstore/c_client_log.h"

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace postkeeper::zk {
namespace {

std::array<std::atomic<CClientLog*>, CClient::kClientsMax> slots{};

template <std::size_t slot>
void Callback(const char* line) {
  if (CClientLog* log = slots[slot].load()) log->Receive(line);
}

template <std::size_t... slot>
constexpr std::array<log_callback_fn, sizeof...(slot)> MakeCallbacks(std::index_sequence<slot...>) {
  return {&Callback<slot>...};
}

constexpr auto kCallbacks = MakeCallbacks(std::make_index_sequence<CClient::kClientsMax>());

LogLevel LevelOf(std::string_view head) {
  if (head.find(":ZOO_ERROR@") != head.npos) return LogLevel::kError;
  if (head.find(":ZOO_WARN@") != head.npos) return LogLevel::kWarning;
  if (head.find(":ZOO_INFO@") != head.npos) return LogLevel::kInfo;
  return LogLevel::kDebug;
}

}  // namespace

CClientLog::CClientLog(OnLine on_line) : on_line_(std::move(on_line)) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    CClientLog* nobody = nullptr;
    if (!slots[i].compare_exchange_strong(nobody, this)) continue;
    slot_ = static_cast<int>(i);
    return;
  }
  std::fprintf(stderr, "postkeeper: more than %d ZooKeeper clients in one process\n", CClient::kClientsMax);
  std::abort();
}

CClientLog::~CClientLog() { slots[static_cast<std::size_t>(slot_)] = nullptr; }

log_callback_fn CClientLog::callback() const { return kCallbacks[static_cast<std::size_t>(slot_)]; }

void CClientLog::Receive(std::string_view line) const {
  while (!line.empty() && line.back() == '\n') line.remove_suffix(1);
  // "2022-03-07 10:11:12,345:4711(0x7f12):ZOO_WARN@function@2597: text"
  std::size_t at = line.find(":ZOO_");
  std::size_t end = at == line.npos ? at : line.find(": ", at);
  if (end == line.npos) return on_line_(LogLevel::kDebug, line);
  on_line_(LevelOf(line.substr(0, end)), line.substr(end + 2));
}

}  // namespace postkeeper::zk
