#include "merganser/eval/ranks.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>
#include <utility>

#include "merganser/base/error.h"
#include "merganser/base/interrupt.h"
#include "merganser/base/quote.h"
#include "merganser/text/batching.h"

namespace merganser {
namespace {

using Bytes = std::vector<uint8_t>;
constexpr auto kPoll = std::chrono::milliseconds(20);

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

int64_t number(const char* name, int64_t least, int64_t most) {
  const std::string text = variable(name);
  int64_t value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() ||
      value < least || value > most) {
    throw InputError(fmt::format(
        "WORLD_SIZE is set: expected {} from {} to {} in the environment, as "
        "torchrun sets it, got {}",
        name,
        least,
        most,
        text.empty() ? "none" : quote(text)));
  }
  return value;
}

} // namespace

struct Ranks::Store {
  c10::intrusive_ptr<c10d::TCPStore> client;
  std::string prefix; // of this job's keys

  std::string key(int64_t call, int64_t rank) const {
    return fmt::format("{}/{}/{}", prefix, call, rank);
  }

  // Waits without end, but for a signal.
  Bytes receive(const std::string& key) const {
    while (!client->check({key})) {
      check_interrupt();
      std::this_thread::sleep_for(kPoll);
    }
    Bytes value = client->get(key);
    client->deleteKey(key);
    return value;
  }
};

Ranks::Ranks(int64_t rank, int64_t size, std::unique_ptr<Store> store)
    : rank_(rank), size_(size), store_(std::move(store)) {}
Ranks::~Ranks() = default;
Ranks::Ranks(Ranks&&) noexcept = default;

Ranks Ranks::from_environment() {
  if (variable("WORLD_SIZE").empty()) {
    return {0, 1, nullptr};
  }
  const int64_t size = number("WORLD_SIZE", 1, 1 << 20);
  if (size == 1) {
    return {0, 1, nullptr};
  }
  const int64_t rank = number("RANK", 0, size - 1);
  const std::string host = variable("MASTER_ADDR");
  if (host.empty()) {
    throw InputError(
        "WORLD_SIZE is set: expected MASTER_ADDR in the environment, as "
        "torchrun sets it, got none");
  }
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(number("MASTER_PORT", 1, UINT16_MAX));
  options.waitWorkers = false;
  options.isServer =
      rank == 0 && variable("TORCHELASTIC_USE_AGENT_STORE") != "True";
  auto store = std::make_unique<Store>();
  // The agent's store outlives processes that it starts again.
  store->prefix =
      fmt::format("merganser/eval/{}", variable("TORCHELASTIC_RESTART_COUNT"));
  try {
    store->client = c10::make_intrusive<c10d::TCPStore>(host, options);
  } catch (const std::exception& error) {
    const std::string_view text = error.what();
    throw Error(fmt::format(
        "cannot reach the store of rank {}'s job at {}:{}: {}",
        rank,
        host,
        options.port,
        text.substr(0, text.find('\n'))));
  }
  return {rank, size, std::move(store)};
}

std::vector<int64_t> Ranks::positions(
    const Dataset& data,
    int64_t batch_size,
    int64_t rank) const {
  const auto batches = sorted_batches(data, batch_size);
  std::vector<int64_t> positions;
  for (size_t i = rank; i < batches.size(); i += size_) {
    positions.insert(positions.end(), batches[i].begin(), batches[i].end());
  }
  return positions;
}

Dataset Ranks::share(const Dataset& data, int64_t batch_size) const {
  Dataset part;
  part.path = data.path;
  for (const int64_t position : positions(data, batch_size, rank_)) {
    part.ids.push_back(data.ids[position]);
    part.labels.push_back(data.labels[position]);
    if (!data.token_types.empty()) {
      part.token_types.push_back(data.token_types[position]);
    }
  }
  return part;
}

at::Tensor Ranks::gather(
    const at::Tensor& rows,
    const Dataset& data,
    int64_t batch_size,
    const std::string& inputs) {
  const int64_t call = calls_++;
  const at::Tensor own = rows.contiguous();
  if (rank_ != 0) {
    Bytes message(inputs.begin(), inputs.end());
    const auto* begin = static_cast<const uint8_t*>(own.const_data_ptr());
    message.insert(message.end(), begin, begin + own.nbytes());
    store_->client->set(store_->key(call, rank_), message);
    return {};
  }
  at::Tensor all = at::empty({data.size(), rows.size(1)}, rows.options());
  for (int64_t rank = 0; rank < size_; ++rank) {
    const std::vector<int64_t> rows_of = positions(data, batch_size, rank);
    at::Tensor part = own;
    if (rank != 0) {
      const Bytes message = store_->receive(store_->key(call, rank));
      part = at::empty({std::ssize(rows_of), rows.size(1)}, rows.options());
      if (message.size() != inputs.size() + part.nbytes() ||
          !std::equal(inputs.begin(), inputs.end(), message.begin())) {
        throw InputError(fmt::format(
            "rank {} has a model, data or options that differ from those of "
            "rank 0",
            rank));
      }
      std::memcpy(
          part.mutable_data_ptr(),
          message.data() + inputs.size(),
          part.nbytes());
    }
    all.index_copy_(0, at::tensor(rows_of, at::kLong), part);
  }
  return all;
}

} // namespace merganser
