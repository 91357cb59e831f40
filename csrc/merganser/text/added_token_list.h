#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <map>
#include <string>

namespace merganser {

// The added tokens that transformers makes of a tokenizer_config.json, in the
// form of a tokenizer.json.
class AddedTokenList {
 public:
  // The special tokens of a tokenizer class, such as "cls_token": "[CLS]".
  using Defaults = std::map<std::string, std::string>;

  AddedTokenList(
      const nlohmann::json& config,
      const nlohmann::json& vocabulary,
      const Defaults& defaults);

  const nlohmann::json& tokens() const {
    return tokens_;
  }

  // The text and the id of a listed token, as BertProcessing and
  // RobertaProcessing name it.
  nlohmann::json named(const std::string& content) const;

 private:
  void add(const nlohmann::json& token, bool normalized);

  const nlohmann::json& vocabulary_;
  int64_t next_;
  nlohmann::json tokens_ = nlohmann::json::array();
  std::map<std::string, nlohmann::json> ids_;
};

} // namespace merganser
