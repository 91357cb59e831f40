#pragma once

#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/checkpoint.h"

// Names of one tensor in different files. Files of one model can differ in
// them, and transformers loads them all: in the prefix of the base model
// ("bert." before the names of BertModel), in older names (LayerNorm.gamma), in
// constants that a version stores, in how often tied tensors are stored, and in
// those of modules of sentence-transformers.
namespace merganser {

// The names of a checkpoint's tensors by the reference's names for them.
class MERGANSER_API NameMap {
 public:
  NameMap() = default;
  NameMap(
      const std::vector<std::string>& stored,
      const std::vector<std::string>& reference);

  // The stored name; nullptr if the checkpoint lacks the tensor.
  const std::string* find(const std::string& name) const;
  // The reference's name of a stored tensor, or what it would be.
  const std::string& name_of(const std::string& stored) const;

  // Adds a name for a tensor that has one: that of a tied tensor.
  void alias(const std::string& name, const std::string& stored);
  // Replaces the name of a tensor that the reference lacks.
  void rename(const std::string& name, const std::string& stored);

 private:
  std::unordered_map<std::string, std::string> stored_; // by current name
  std::unordered_map<std::string, std::string> names_; // by stored name
};

// A checkpoint under the reference's names.
struct NamedCheckpoint {
  const Checkpoint& file;
  const NameMap& names;

  const TensorInfo* find(const std::string& name) const {
    const std::string* stored = names.find(name);
    return stored == nullptr ? nullptr : file.find(*stored);
  }
  // Throws InputError if the checkpoint lacks the tensor.
  StoredTensor at(const std::string& name) const {
    const std::string* stored = names.find(name);
    return file.at(stored == nullptr ? name : *stored);
  }
  const std::string& name_of(const TensorInfo& tensor) const {
    return names.name_of(tensor.name);
  }
};

std::vector<std::string> names_of(const Checkpoint& checkpoint);

// True for tensors of heads: of classification, or of the task on which a model
// was pretrained. A recipe's `heads` applies to them.
MERGANSER_API bool is_head_tensor(std::string_view name);

// True for tensors of poolers, which only some heads have.
MERGANSER_API bool is_pooler_tensor(std::string_view name);

// True for buffers that follow from the configuration (position_ids, the mask
// attn.bias of GPT-2), and weights that no version uses: some versions of
// transformers store them and others do not, and none needs them in the file.
MERGANSER_API bool is_constant_tensor(const TensorInfo& tensor);

// True for the weight of a linear layer, by its name and shape: a matrix that
// is no table of embeddings or relative positions.
MERGANSER_API bool is_linear_weight(const TensorInfo& tensor);

// True for a tensor that methods with singular vectors merge by them: the
// weight of a linear layer that is not in a head, of which every task has its
// own in the sources of these methods.
MERGANSER_API bool is_spectral(const TensorInfo& tensor);

// True for names that transformers ties in some models: tables of input and
// output tokens, and the two biases of a decoder.
MERGANSER_API bool may_be_tied(std::string_view a, std::string_view b);

} // namespace merganser
