"""slimvox directories as `transformers` models.

>>> import slimvox
>>> from transformers import AutoModel
>>> slimvox.register_auto_classes()
>>> model = AutoModel.from_pretrained("runs/small")

The modules that `heads` imports travel with every model directory (see `travelling_code`), so that it also loads where
slimvox is not installed. They import only modules of slimvox that can be saved with them.
"""
