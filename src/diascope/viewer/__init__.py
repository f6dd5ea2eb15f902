"""The live page: drop an image, see prediction, maps and attack of the loaded models.

Nothing here imports torch before a model is opened, so that the page stands at once.
"""
