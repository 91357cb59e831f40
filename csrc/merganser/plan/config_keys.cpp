#include "merganser/plan/config_keys.h"

#include <algorithm>
#include <iterator>

namespace merganser {
namespace {

bool is_in(const auto& names, std::string_view name) {
  return std::ranges::find(names, name) != std::end(names);
}

// Names by which architectures call one value; the first is that of BERT.
struct Alias {
  std::string_view name, also;
};
constexpr Alias kAliases[] = {
    {"hidden_size", "d_model"},
    {"hidden_size", "dim"},
    {"hidden_size", "emb_dim"},
    {"hidden_size", "embed_dim"},
    {"hidden_size", "n_embd"},
    {"hidden_size", "n_embed"},
    {"intermediate_size", "ffn_hidden_size"},
    {"layer_norm_eps", "layer_norm_epsilon"},
    {"max_position_embeddings", "max_seq_len"},
    {"max_position_embeddings", "n_positions"},
    {"num_attention_heads", "n_head"},
    {"num_attention_heads", "n_heads"},
    {"num_attention_heads", "num_heads"},
    {"num_experts", "n_routed_experts"},
    {"num_experts", "num_local_experts"},
    {"num_hidden_layers", "n_layer"},
    {"num_hidden_layers", "n_layers"},
    {"num_hidden_layers", "num_layers"},
    {"num_key_value_heads", "n_head_kv"},
    {"num_key_value_heads", "num_kv_heads"},
    {"pad_token_id", "pad_index"},
    {"vocab_size", "n_token"},
    {"vocab_size", "n_words"},
    // transformers 5 has all values of rotary embeddings in one object.
    {"rope_parameters.partial_rotary_factor", "partial_rotary_factor"},
    {"rope_parameters.partial_rotary_factor", "rotary_pct"},
    {"rope_parameters.rope_theta", "rope_theta"},
    {"rope_parameters.rope_theta", "rotary_emb_base"},
};

// Keys that give tensors their meaning, besides those of rotary embeddings.
constexpr std::string_view kRefused[] = {
    "vocab_size",
    "embedding_size",
    "hidden_size",
    "head_dim",
    "d_head",
    "d_kv",
    "intermediate_size",
    "d_ff",
    "d_inner",
    "ffn_dim",
    "hidden_dim",
    "n_inner",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "num_hidden_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
    "num_attention_heads",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "num_key_value_heads",
    "num_experts",
    "num_experts_per_tok",
    "max_position_embeddings",
    "type_vocab_size",
    "position_embedding_type",
    "position_buckets",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "rotary_dim",
    "layer_types",
    "layer_norm_eps",
    "norm_eps",
    "rms_norm_eps",
    "pad_token_id",
};

constexpr std::string_view kPositionsFromPadding[] = {
    "altclip_text_model",
    "bridgetower_text_model",
    "camembert",
    "clap_text_model",
    "data2vec-text",
    "esm",
    "evolla",
    "fsmt",
    "ibert",
    "kosmos_2_text_model",
    "kosmos_2_5_text_model",
    "layoutlmv3",
    "lilt",
    "longformer",
    "luke",
    "m2m_100",
    "markuplm",
    "mpnet",
    "nllb-moe",
    "prophetnet",
    "roberta",
    "roberta-prelayernorm",
    "seamless_m4t",
    "seamless_m4t_v2",
    "speech_to_text",
    "speecht5",
    "trocr",
    "xlm-prophetnet",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
};

// Names of activation functions, which have these values.
constexpr std::string_view kActivationKeys[] = {
    "activation",
    "activation_function",
    "dense_act_fn",
    "feed_forward_proj",
    "ff_activation",
    "hidden_act",
    "hidden_activation",
};

// Names that transformers has for one function, up to rounding.
constexpr Alias kActivations[] = {
    {"gelu", "gelu_python"},
    {"gelu_new", "gelu_accurate"},
    {"gelu_new", "gelu_fast"},
    {"gelu_new", "gelu_python_tanh"},
    {"gelu_new", "gelu_pytorch_tanh"},
    {"linear", "identity"},
    {"silu", "swish"},
};

constexpr Alias kRopeTypes[] = {{"default", "mrope"}, {"longrope", "su"}};

constexpr std::string_view kHarmless[] = {
    "_attn_implementation",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "auto_map",
    "chunk_size_feed_forward",
    "dtype",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "init_std",
    "initializer_cutoff_factor",
    "initializer_factor",
    "initializer_range",
    "label2id",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pretraining_tp",
    "problem_type",
    "quantization_config",
    "reference_compile",
    "return_dict",
    "router_aux_loss_coef",
    "task_specific_params",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
};

std::string first_name(const auto& aliases, const std::string& name) {
  const auto found = std::ranges::find(aliases, name, &Alias::also);
  return std::string(found == std::end(aliases) ? name : found->name);
}

} // namespace

bool is_harmless_key(std::string_view key) {
  const auto contains = [&](std::string_view part) {
    return key.find(part) != key.npos;
  };
  return is_in(kHarmless, key) || contains("dropout") || contains("pdrop") ||
      contains("layerdrop");
}

std::string common_key(const std::string& key) {
  return first_name(kAliases, key);
}

std::string common_activation(const std::string& name) {
  return first_name(kActivations, name);
}

std::string common_rope_type(const std::string& name) {
  return first_name(kRopeTypes, name);
}

bool is_activation_key(std::string_view key) {
  return is_in(kActivationKeys, key);
}

bool gives_tensors_meaning(std::string_view key) {
  return is_in(kRefused, key) || is_activation_key(key);
}

bool positions_from_padding(std::string_view model_type) {
  return is_in(kPositionsFromPadding, model_type);
}

} // namespace merganser
