"""The generator behind an HTTP endpoint in the shape of OpenAI's images."""
